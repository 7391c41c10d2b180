"""How each receiving transport dresses frames for its client (SockJS protocol 0.3.3, from "XhrPolling" on)."""

import re
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from postroom.sockjs.framing import quoted
from postroom.sockjs.paths import Kind

_CALLBACK: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_JAVASCRIPT: Final = "application/javascript; charset=UTF-8"
_HTML_HEAD: Final = """<!doctype html>
<html><head>
  <meta http-equiv="X-UA-Compatible" content="IE=edge" />
  <meta http-equiv="Content-Type" content="text/html; charset=UTF-8" />
</head><body><h2>Don't panic!</h2>
  <script>
    document.domain = document.domain;
    var c = parent.{callback};
    c.start();
    function p(d) {{c.message(d);}};
    window.onload = function() {{c.stop();}};
  </script>
"""
_HTML_BYTES: Final = 1024  # what Safari wants to see before it shows anything


class Wire(Struct, frozen=True):
    """One receiving transport: what begins a response, and how a frame looks in it.

    `streams`: a response carries many frames; else it ends with its first.
    """

    content_type: str
    streams: bool
    prelude: bytes
    dress: Callable[[bytes], bytes]


class BadCallback(Exception):
    """The `callback` parameter is missing or no name. `str()` is the sentence for the client."""


def _line(frame: bytes) -> bytes:
    return frame + b"\n"


def _event(frame: bytes) -> bytes:
    return b"data: " + frame + b"\r\n\r\n"


def _script(frame: bytes) -> bytes:
    return b"<script>\np(" + quoted(frame) + b");\n</script>\r\n"


_PLAIN: Final = {
    Kind.XHR: Wire(_JAVASCRIPT, streams=False, prelude=b"", dress=_line),
    Kind.XHR_STREAMING: Wire(_JAVASCRIPT, streams=True, prelude=b"h" * 2048 + b"\n", dress=_line),
    Kind.EVENTSOURCE: Wire("text/event-stream; charset=UTF-8", streams=True, prelude=b"\r\n", dress=_event),
}

RECEIVING: Final = frozenset((*_PLAIN, Kind.HTMLFILE, Kind.JSONP))
"""The kinds whose requests wait for frames."""


def wire(kind: Kind, callback: str | None) -> Wire:
    """The wire of a receiving request. Raises BadCallback where it needs a callback and has no good one."""
    if (plain := _PLAIN.get(kind)) is not None:
        return plain
    if not callback:
        raise BadCallback('"callback" parameter required')
    if not _CALLBACK.fullmatch(callback):
        raise BadCallback('invalid "callback" parameter')
    if kind is Kind.HTMLFILE:
        head = _HTML_HEAD.format(callback=callback).encode().ljust(_HTML_BYTES) + b"\r\n\r\n"
        return Wire("text/html; charset=UTF-8", streams=True, prelude=head, dress=_script)
    name = callback.encode()
    return Wire(_JAVASCRIPT, streams=False, prelude=b"", dress=lambda frame: name + b"(" + quoted(frame) + b");\r\n")
