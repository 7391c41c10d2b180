"""The authentication contract."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from postroom.destination import user_name
from postroom.errors import AuthenticationFailed, UnknownDestination
from postroom.identity import Principal
from postroom.transport.base import Handshake


class Authenticator(Protocol):
    """Tells who a client is, at the handshake and at CONNECT.

    Several are tried in their order. The first principal counts; None passes on to the next; credentials
    that are present but wrong raise AuthenticationFailed at once (401 at the handshake, ERROR at CONNECT).
    Neither call blocks.
    """

    name: str

    def at_handshake(self, handshake: Handshake) -> Principal | None:
        """Whom the request's headers name, before the upgrade."""
        ...

    def at_connect(self, handshake: Handshake, headers: Mapping[str, str]) -> Principal | None:
        """Whom the CONNECT frame's headers name, where the handshake named nobody."""
        ...


def principal_of(name: str, roles: Iterable[str], expires_at: float | None) -> Principal:
    """The principal of a believed name, brought to its canonical form. Raises AuthenticationFailed."""
    try:
        return Principal(user_name(name), frozenset(roles), expires_at)
    except UnknownDestination as error:
        raise AuthenticationFailed(str(error)) from error
