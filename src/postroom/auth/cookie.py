"""A signed session cookie: who logged in, and when."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from itsdangerous import BadData, URLSafeTimedSerializer

from postroom.auth.base import principal_of
from postroom.errors import AuthenticationFailed, ConfigurationError
from postroom.identity import Principal, UserName
from postroom.transport.base import Handshake

_MIN_SECRET: Final = 32
_SALT: Final = "postroom.session"
_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class CookieAuthenticator:
    """Believes cookies that were signed with `secret` (32 characters or more) no longer than `max_age_seconds` ago.

    A cookie that is forged or too old names nobody: a browser sends what it has, and its user may log in again. One
    counts only where the handshake has an Origin, which was checked: a browser adds the cookie to whatever page asks,
    so that the page must be known. Browsers always send it; tokens and other credentials need none.
    """

    name = "cookie"

    def __init__(self, secret: str, *, cookie_name: str = "postroom", max_age_seconds: float = 86_400.0) -> None:
        if len(secret) < _MIN_SECRET:
            raise ConfigurationError(
                f"auth.cookie: the secret has {len(secret)} characters; at least {_MIN_SECRET} are needed"
            )
        if not _NAME.fullmatch(cookie_name):
            raise ConfigurationError(f"auth.cookie: {cookie_name!r} is no name for a cookie")
        self.cookie_name = cookie_name
        self.max_age_seconds = max_age_seconds
        self._serializer = URLSafeTimedSerializer(secret, salt=_SALT)

    def issue(self, name: UserName) -> str:
        """The value of a cookie for `name`."""
        return str(self._serializer.dumps(name))

    def read(self, cookies: str) -> UserName | None:
        """Whom a Cookie header names, if anybody."""
        principal = self._principal(cookies)
        return principal.name if principal is not None else None

    def at_handshake(self, handshake: Handshake) -> Principal | None:
        """The cookie of the request; nobody where the request does not say which page it comes from."""
        return self._principal(handshake.headers.get("cookie", "")) if _names_page(handshake) else None

    def at_connect(self, handshake: Handshake, headers: Mapping[str, str]) -> Principal | None:
        """Nobody: a cookie comes with the handshake. Whom it would let in but for the Origin is told so."""
        if not _names_page(handshake) and self._principal(handshake.headers.get("cookie", "")) is not None:
            raise AuthenticationFailed(
                "a session cookie needs an Origin header beside it: send that of the page, or use a token"
            )
        return None

    def _principal(self, cookies: str) -> Principal | None:
        for value in self._values(cookies):
            try:
                name, at = self._serializer.loads(value, max_age=int(self.max_age_seconds), return_timestamp=True)
            except BadData:
                continue
            if isinstance(name, str):
                return principal_of(name, (), at.timestamp() + self.max_age_seconds)
        return None

    def _values(self, cookies: str) -> Iterator[str]:
        # By hand: http.cookies gives up at the first cookie that it dislikes, and others set what they like. A name
        # may come twice (of a parent domain, of a longer path): the one that is signed counts.
        for part in cookies.split(";"):
            name, equals, value = part.strip().partition("=")
            if equals and name.strip() == self.cookie_name:
                yield value.strip().strip('"')


def _names_page(handshake: Handshake) -> bool:
    # `null` is what sandboxed frames and local files are called: any page can make one.
    return handshake.headers.get("origin", "null") != "null"
