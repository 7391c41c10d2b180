"""Development only: everybody is who they say they are."""

import secrets
from collections.abc import Mapping

from postroom.auth.base import principal_of
from postroom.identity import Principal
from postroom.transport.base import Handshake


class DevAuthenticator:
    """The CONNECT frame's `login` names the user, without a password; without one it is `anonymous-…`."""

    name = "dev"

    def at_handshake(self, handshake: Handshake) -> Principal | None:
        """Nobody yet."""
        return None

    def at_connect(self, handshake: Handshake, headers: Mapping[str, str]) -> Principal | None:
        """Whoever the client says."""
        return principal_of(headers.get("login") or f"anonymous-{secrets.token_hex(4)}", (), None)
