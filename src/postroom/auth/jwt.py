"""JSON Web Tokens (RFC 7519): fixed algorithms, one key or a JWKS file, `exp` required."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import jwt
import structlog

from postroom.auth.base import principal_of
from postroom.errors import AuthenticationFailed, ConfigurationError
from postroom.identity import Principal
from postroom.transport.base import Handshake

_log = structlog.get_logger("postroom.auth")

_ALGORITHMS: Final = frozenset(
    f"{family}{size}" for family in ("HS", "RS", "ES", "PS") for size in ("256", "384", "512")
)
_MIN_SECRET: Final = 32
_LOOK_SECONDS: Final = 1.0


class JwtAuthenticator:
    """Believes tokens that `key` (a secret, or a public key in PEM) or a key of `jwks_file` signed.

    The token comes as `Authorization: Bearer` at the handshake, or in CONNECT as `Authorization`, `token` or
    `passcode`. Which algorithms count is set here and never read from the token. The JWKS file is read again
    when it changes; while it cannot be read, the keys that were read last count.

    Raises ConfigurationError for keys that cannot work.
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
            raise ConfigurationError(f"auth.jwt: the key has {len(key)} characters; at least {_MIN_SECRET} are needed")
        self._algorithms = list(algorithms)
        self._key = _prepared(key, self._algorithms) if key is not None else None
        self._jwks = _KeySet(Path(jwks_file), self._algorithms) if jwks_file is not None else None
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
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
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


def _prepared(key: str, algorithms: Sequence[str]) -> str:
    for name in algorithms:
        try:
            jwt.get_algorithm_by_name(name).prepare_key(key)
        except (jwt.PyJWTError, ValueError, TypeError):
            raise ConfigurationError(
                f"auth.jwt: the key does not suit {name}: HS* takes a secret, all others a public key in PEM"
            ) from None
    return key


class _KeySet:
    """The keys of a JWKS file (RFC 7517), read again when the file changes.

    Keys that no configured algorithm could use (for encryption, of another kind) are passed over.
    """

    def __init__(self, path: Path, algorithms: Sequence[str]) -> None:
        self._path = path
        self._algorithms = frozenset(algorithms)
        self._looked = 0.0
        try:
            self._stamp = self._look()
            self._keys = self._read()
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"auth.jwt: jwks-file {path}: {error}") from error

    def find(self, kid: str | None) -> Any:
        now = time.monotonic()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            self._refresh()
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        if kid not in self._keys:
            raise AuthenticationFailed("the token is not valid")
        return self._keys[kid]

    def _refresh(self) -> None:
        try:
            stamp = self._look()
            if stamp != self._stamp:
                self._keys = self._read()
                self._stamp = stamp
        except (OSError, ValueError) as error:  # half written, or being replaced: the next look may find it whole
            _log.warning("the key set cannot be read; the keys read last still count", reason=str(error))

    def _look(self) -> tuple[int, int, int]:
        found = self._path.stat()
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self) -> dict[str | None, Any]:
        """Raises ValueError where there is nothing to verify with, so that a broken file changes nothing."""
        document = json.loads(self._path.read_text(encoding="utf-8"))
        entries = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError('this is no JWKS: {"keys": [{...}, ...]}')
        found = {entry.get("kid"): key for entry in entries if (key := self._usable(entry)) is not None}
        if not found:
            raise ValueError(f"it has no key for {', '.join(sorted(self._algorithms))}")
        return found

    def _usable(self, entry: Mapping[str, Any]) -> Any:
        if entry.get("use", "sig") != "sig" or entry.get("alg", "") not in (*self._algorithms, ""):
            return None
        kid = entry.get("kid")
        if kid is not None and not isinstance(kid, str):
            return None
        for name in self._algorithms:
            try:
                key = jwt.get_algorithm_by_name(name).from_jwk(dict(entry))
            except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError):
                continue
            if not isinstance(key, bytes) or len(key) >= _MIN_SECRET:
                return key
        return None


def _bearer(value: str | None) -> str | None:
    if value is None:
        return None
    kind, _, token = value.partition(" ")
    return token.strip() if kind.lower() == "bearer" else None
