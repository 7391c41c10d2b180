"""The page that a client loads into a hidden iframe (SockJS protocol 0.3.3, "IFrame page")."""

from hashlib import sha256
from html import escape
from typing import Final

_PAGE: Final = """<!DOCTYPE html>
<html>
<head>
  <meta http-equiv="X-UA-Compatible" content="IE=edge" />
  <meta http-equiv="Content-Type" content="text/html; charset=UTF-8" />
  <script>
    document.domain = document.domain;
    _sockjs_onload = function(){{SockJS.bootstrap_iframe();}};
  </script>
  <script src="{client_url}"></script>
</head>
<body>
  <h2>Don't panic!</h2>
  <p>This is a SockJS hidden iframe. It's used for cross domain magic.</p>
</body>
</html>
"""


def page(client_url: str) -> bytes:
    """The page, which loads the client library from `client_url`."""
    return _PAGE.format(client_url=escape(client_url)).encode()


def etag(body: bytes) -> str:
    """The page's entity tag: the same for the same page."""
    return f'"{sha256(body).hexdigest()[:32]}"'
