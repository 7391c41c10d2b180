"""JSON Web Tokens (RFC 7519): fixed algorithms, one key or a JWKS file, `exp` required."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import jwt

from postroom.auth.base import principal_of
from postroom.errors import AuthenticationFailed, ConfigurationError
from postroom.identity import Principal
from postroom.transport.base import Handshake

_ALGORITHMS: Final = frozenset(
    f"{family}{size}" for family in ("HS", "RS", "ES", "PS") for size in ("256", "384", "512")
)
_MIN_SECRET: Final = 32
_LOOK_SECONDS: Final = 1.0


class JwtAuthenticator:
    """Believes tokens that `key` (a secret, or a public key in PEM) or a key of `jwks_file` signed.

    The token comes as `Authorization: Bearer` at the handshake, or in CONNECT as `Authorization`, `token` or
    `passcode`. Which algorithms count is set here and never read from the token. The JWKS file is read again
    when it changes. Raises ConfigurationError for keys that cannot work.
    """

    name = "jwt"

    def __init__(
        self,
        *,
        algorithms: Sequence[str],
        key: str | None = None,
        jwks_file: str | None = None,
        audience: str | None = None,
        issuer: str | None = None,
        user_claim: str = "sub",
        roles_claim: str = "roles",
        leeway_seconds: float = 30.0,
    ) -> None:
        unknown = set(algorithms) - _ALGORITHMS
        if unknown or not algorithms:
            known = ", ".join(sorted(_ALGORITHMS))
            raise ConfigurationError(f"auth.jwt: algorithms must be some of {known}, not {sorted(unknown)}")
        if (key is None) == (jwks_file is None):
            raise ConfigurationError("auth.jwt: give one of key, key-file and jwks-file")
        symmetric = {algorithm[:2] == "HS" for algorithm in algorithms}
        if len(symmetric) > 1:
            raise ConfigurationError("auth.jwt: HS* and public-key algorithms cannot share a key")
        if key is not None and True in symmetric and len(key) < _MIN_SECRET:
            raise ConfigurationError(
                f"auth.jwt: the secret has {len(key)} characters; at least {_MIN_SECRET} are needed"
            )
        self._algorithms = list(algorithms)
        self._key = key
        self._jwks = _KeySet(Path(jwks_file)) if jwks_file is not None else None
        self._audience = audience
        self._issuer = issuer
        self._user_claim = user_claim
        self._roles_claim = roles_claim
        self._leeway = leeway_seconds

    def at_handshake(self, handshake: Handshake) -> Principal | None:
        """The token of the Authorization header."""
        return self._believe(_bearer(handshake.headers.get("authorization")))

    def at_connect(self, handshake: Handshake, headers: Mapping[str, str]) -> Principal | None:
        """The token of the CONNECT frame."""
        token = _bearer(headers.get("Authorization") or headers.get("authorization"))
        return self._believe(token or headers.get("token") or headers.get("passcode"))

    def _believe(self, token: str | None) -> Principal | None:
        if not token:
            return None
        try:
            claims = jwt.decode(
                token,
                self._key_of(token),
                algorithms=self._algorithms,
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway,
                options={"require": ["exp", self._user_claim], "verify_aud": self._audience is not None},
            )
        except jwt.ExpiredSignatureError:
            raise AuthenticationFailed("the token has expired") from None
        except (jwt.PyJWTError, ValueError, TypeError):
            raise AuthenticationFailed("the token is not valid") from None
        user, roles = claims[self._user_claim], claims.get(self._roles_claim, ())
        if not isinstance(user, str) or not isinstance(roles, (list, tuple, str)):
            raise AuthenticationFailed("the token is not valid")
        names = roles.split() if isinstance(roles, str) else [str(role) for role in roles]
        return principal_of(user, names, float(claims["exp"]) + self._leeway)

    def _key_of(self, token: str) -> Any:
        if self._jwks is None:
            return self._key
        return self._jwks.find(jwt.get_unverified_header(token).get("kid"))


class _KeySet:
    """The keys of a JWKS file (RFC 7517), read again when the file changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = 0.0
        self._looked = 0.0
        self._keys: dict[str | None, Any] = {}
        try:
            self._read()
        except (OSError, ValueError, jwt.PyJWTError) as error:
            raise ConfigurationError(f"auth.jwt: {path} is no JWKS file: {error}") from error

    def find(self, kid: str | None) -> Any:
        now = time.monotonic()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            if os.stat(self._path).st_mtime != self._stamp:
                self._read()
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        if kid not in self._keys:
            raise AuthenticationFailed("the token is not valid")
        return self._keys[kid]

    def _read(self) -> None:
        stamp = os.stat(self._path).st_mtime
        entries = json.loads(self._path.read_text(encoding="utf-8"))["keys"]
        self._keys = {entry.get("kid"): jwt.PyJWK(entry).key for entry in entries}
        self._stamp = stamp


def _bearer(value: str | None) -> str | None:
    if value is None:
        return None
    kind, _, token = value.partition(" ")
    return token.strip() if kind.lower() == "bearer" else None
