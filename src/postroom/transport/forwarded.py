"""Whose address counts where proxies stand in front: what they say in X-Forwarded-For, if they may say it."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from postroom.transport.base import Handshake
from postroom.transport.handshake import UNIX


class Networks:
    """Networks of addresses, such as `10.0.0.0/8`; `unix` stands for Unix sockets. Raises ValueError."""

    __slots__ = ("_networks", "_unix")

    def __init__(self, texts: Sequence[str]) -> None:
        self._unix = UNIX in texts
        self._networks = tuple(ip_network(text) for text in texts if text != UNIX)

    def __contains__(self, peer: str) -> bool:
        if peer == UNIX:
            return self._unix
        address = _address(peer)
        return address is not None and any(address in network for network in self._networks)


class TrustedProxies:
    """Tells a client's own address from that of the proxies before it.

    Each proxy appends whom it heard to X-Forwarded-For, so that the header is read from its end: the first address
    that is no trusted proxy's is the client's. What stands before it, anybody may have written. Raises ValueError.
    """

    __slots__ = ("_any", "_trusted")

    def __init__(self, networks: Sequence[str]) -> None:
        self._any = bool(networks)
        self._trusted = Networks(networks)

    def client_of(self, handshake: Handshake) -> str:
        """The client's address; the nearest proxy's that is known, where the header tells no more."""
        found = handshake.peer_address
        if not self._any or found not in self._trusted:
            return found
        for hop in reversed(handshake.headers.get("x-forwarded-for", "").split(",")):
            address = _address(_without_port(hop.strip()))
            if address is None:
                return found
            found = str(address)
            if found not in self._trusted:
                return found
        return found


def _without_port(hop: str) -> str:
    """Some proxies write the port too: `192.0.2.1:4711`, `[2001:db8::1]:4711`."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped  # what a socket for both families says of a peer with IPv4
    return address
