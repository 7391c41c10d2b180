"""Two people in one window: its panes share one cookie, so that each says by a token who sits there."""

from collections.abc import Mapping
from typing import Final

from itsdangerous import BadData, URLSafeTimedSerializer

from postroom.auth.base import principal_of
from postroom.auth.cookie import CookieAuthenticator
from postroom.errors import AuthenticationFailed
from postroom.identity import Principal, UserName
from postroom.transport.base import Handshake

_SALT: Final = "postroom.demo.pane"
_SECONDS: Final = 86_400


class PaneAuthenticator:
    """Believes the token in CONNECT's header `pane`; a client without one is whom its cookie names.

    So the cookie is looked at only with CONNECT: at the handshake it would be the same for both panes.
    """

    name = "pane"

    def __init__(self, secret: str, cookies: CookieAuthenticator) -> None:
        self._serializer = URLSafeTimedSerializer(secret, salt=_SALT)
        self._cookies = cookies

    def issue(self, name: UserName) -> str:
        """The token of a pane of `name`."""
        return str(self._serializer.dumps(name))

    def at_handshake(self, handshake: Handshake) -> Principal | None:
        """Nobody yet."""
        return None

    def at_connect(self, handshake: Handshake, headers: Mapping[str, str]) -> Principal | None:
        """Whom the token names, or else the cookie."""
        token = headers.get("pane")
        if token is None:
            return self._cookies.at_handshake(handshake) or self._cookies.at_connect(handshake, headers)
        try:
            name, at = self._serializer.loads(token, max_age=_SECONDS, return_timestamp=True)
        except BadData:
            raise AuthenticationFailed("this pane's token is forged, or too old: load the page again") from None
        return principal_of(str(name), (), at.timestamp() + _SECONDS)
