"""A header of a trusted proxy that has authenticated the user itself."""

from collections.abc import Mapping, Sequence
from ipaddress import IPv6Address, ip_address, ip_network

from postroom.auth.base import principal_of
from postroom.errors import ConfigurationError
from postroom.identity import Principal
from postroom.transport.base import Handshake
from postroom.transport.handshake import UNIX


class HeaderAuthenticator:
    """Believes the header `name` of requests that come from one of the networks `trusted`; of others it ignores it.

    `unix` among the networks stands for a Unix socket.
    """

    name = "header"

    def __init__(self, name: str, trusted: Sequence[str]) -> None:
        if not name or not trusted:
            raise ConfigurationError('auth.header: name and trusted are both needed, such as trusted = ["10.0.0.0/8"]')
        self._header = name.lower()
        self._unix = UNIX in trusted
        try:
            self._networks = [ip_network(text) for text in trusted if text != UNIX]
        except ValueError as error:
            raise ConfigurationError(f"auth.header: trusted: {error}") from error

    def at_handshake(self, handshake: Handshake) -> Principal | None:
        """Whom the proxy names."""
        value = handshake.headers.get(self._header)
        if not value:
            return None
        return principal_of(value, (), None) if self._trusts(handshake.peer_address) else None

    def _trusts(self, peer: str) -> bool:
        if peer == UNIX:
            return self._unix
        try:
            address = ip_address(peer)
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped  # what a socket for both families says of a peer with IPv4
        return any(address in network for network in self._networks)

    def at_connect(self, handshake: Handshake, headers: Mapping[str, str]) -> Principal | None:
        """Nobody: the header comes with the handshake."""
        return None
