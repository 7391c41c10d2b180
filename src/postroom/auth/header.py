"""A header of a trusted proxy that has authenticated the user itself."""

from collections.abc import Mapping, Sequence

from postroom.auth.base import principal_of
from postroom.errors import ConfigurationError
from postroom.identity import Principal
from postroom.transport.base import Handshake
from postroom.transport.forwarded import Networks


class HeaderAuthenticator:
    """Believes the header `name` of requests that come from one of the networks `trusted`; of others it ignores it.

    `unix` among the networks stands for a Unix socket.
    """

    name = "header"

    def __init__(self, name: str, trusted: Sequence[str]) -> None:
        if not name or not trusted:
            raise ConfigurationError('auth.header: name and trusted are both needed, such as trusted = ["10.0.0.0/8"]')
        self._header = name.lower()
        try:
            self._trusted = Networks(trusted)
        except ValueError as error:
            raise ConfigurationError(f"auth.header: trusted: {error}") from error

    def at_handshake(self, handshake: Handshake) -> Principal | None:
        """Whom the proxy names."""
        value = handshake.headers.get(self._header)
        if not value:
            return None
        return principal_of(value, (), None) if handshake.peer_address in self._trusted else None

    def at_connect(self, handshake: Handshake, headers: Mapping[str, str]) -> Principal | None:
        """Nobody: the header comes with the handshake."""
        return None
