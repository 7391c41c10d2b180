"""The files that say who one is at a NATS server: an nkey's seed, or a JWT with one, as `nsc` writes them.

They are read for each connection: what was renewed counts at the next. The client library reads a file without a JWT
for ever.
"""

import base64
import re
from pathlib import Path
from typing import Any, Final

from postroom.errors import ConfigurationError, MissingExtra

try:
    import nkeys
except ModuleNotFoundError as error:  # pragma: no cover
    raise MissingExtra("nats://", "nats") from error

_JWT: Final = re.compile(r"-+BEGIN NATS USER JWT-+\s+(\S+)\s")
_SEED: Final = re.compile(r"-+BEGIN USER NKEY SEED-+\s+(\S+)\s")


def identity(*, nkey_file: str | None, credentials_file: str | None) -> dict[str, Any]:
    """What the client's `connect` is given for these files. Raises ConfigurationError, which tells no secret."""
    if nkey_file is not None and credentials_file is not None:
        raise ConfigurationError("nats://…: nkey-file and credentials-file are two ways to say who one is: give one")
    if nkey_file is not None:
        return {"nkeys_seed_str": _checked(nkey_file, "nkey-file", _text("nkey-file", nkey_file).strip())}
    if credentials_file is not None:
        return _credentials(credentials_file)
    return {}


def _credentials(file: str) -> dict[str, Any]:
    text = _text("credentials-file", file)
    jwt, seed = _JWT.search(text), _SEED.search(text)
    if jwt is None or seed is None:
        lacking = "BEGIN NATS USER JWT" if jwt is None else "BEGIN USER NKEY SEED"
        raise ConfigurationError(f"nats://…: credentials-file: {file} has no part -----{lacking}-----")
    key = _checked(file, "credentials-file", seed[1])

    def sign(nonce: str) -> bytes:
        return base64.b64encode(nkeys.from_seed(bytearray(key.encode())).sign(nonce.encode()))

    return {"user_jwt_cb": lambda: bytearray(jwt[1].encode()), "signature_cb": sign}


def _text(option: str, file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigurationError(f"nats://…: {option}: there is no file {file}") from error
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no text"
        raise ConfigurationError(f"nats://…: {option}: {file}: {reason}") from error


def _checked(file: str, option: str, seed: str) -> str:
    try:
        kind = nkeys.from_seed(bytearray(seed.encode())).public_key[:1]
    except Exception as error:  # of what is no seed the library speaks in errors of any kind
        raise ConfigurationError(f"nats://…: {option}: {file} holds no seed of an nkey") from error
    if kind != b"U":
        raise ConfigurationError(f"nats://…: {option}: the seed in {file} is not a user's: those begin with SU")
    return seed
