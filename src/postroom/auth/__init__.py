"""Who a client is."""

from collections.abc import Mapping, Sequence

from postroom.auth.base import Authenticator
from postroom.errors import AuthenticationFailed
from postroom.identity import Principal
from postroom.transport.base import Handshake

__all__ = ["Authentication", "Authenticator"]


class Authentication:
    """Several authenticators, tried in their order: all at the handshake, then all at CONNECT."""

    def __init__(self, authenticators: Sequence[Authenticator]) -> None:
        self._authenticators = tuple(authenticators)

    def at_handshake(self, handshake: Handshake) -> Principal | None:
        """Whom the request names. Raises AuthenticationFailed where its credentials are wrong."""
        for authenticator in self._authenticators:
            if (principal := authenticator.at_handshake(handshake)) is not None:
                return principal
        return None

    def authenticate(self, handshake: Handshake, headers: Mapping[str, str]) -> Principal:
        """Whom request and CONNECT frame name. Raises AuthenticationFailed where that is nobody."""
        if (principal := self.at_handshake(handshake)) is not None:
            return principal
        for authenticator in self._authenticators:
            if (principal := authenticator.at_connect(handshake, headers)) is not None:
                return principal
        raise AuthenticationFailed("credentials are needed")
