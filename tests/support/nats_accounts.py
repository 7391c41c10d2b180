"""A NATS server's operator mode without `nsc`: keys, and JWTs that are signed with them."""

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import nkeys

_UNBOUNDED: Final = {"subs": -1, "data": -1, "payload": -1}


class Key:
    """A key pair of a kind: an operator's, an account's or a user's."""

    def __init__(self, prefix: int) -> None:
        self.seed: bytes = nkeys.encode_seed(secrets.token_bytes(32), prefix)
        self._pair = nkeys.from_seed(bytearray(self.seed))
        self.public: str = self._pair.public_key.decode()

    def issue(self, subject: str, name: str, claims: Mapping[str, Any], *, seconds: int | None = None) -> str:
        """A JWT about `subject`, which ends in so many seconds."""
        now = int(time.time())  # noqa: TID251  (the server's clock is this one)
        body: dict[str, Any] = {"iat": now, "iss": self.public, "sub": subject, "name": name}
        body["nats"] = {**claims, "version": 2}
        if seconds is not None:
            body["exp"] = now + seconds
        digest = hashlib.new("sha512_256", json.dumps(body).encode()).digest()
        body["jti"] = base64.b32encode(digest).decode().rstrip("=")
        signed = ".".join(_part(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, body))
        return f"{signed}.{_part(self._pair.sign(signed.encode()))}"


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class Operator:
    """An operator with one account. `config` is what a server is told; `credentials` makes a user's file."""

    def __init__(self) -> None:
        self._key, self._account = Key(nkeys.PREFIX_BYTE_OPERATOR), Key(nkeys.PREFIX_BYTE_ACCOUNT)
        everything = {**_UNBOUNDED, "imports": -1, "exports": -1, "conn": -1, "leaf": -1, "wildcards": True}
        account = self._key.issue(self._account.public, "postroom", {"type": "account", "limits": everything})
        operator = self._key.issue(self._key.public, "operator", {"type": "operator"})
        self.config = (
            f"operator: {operator}\nresolver: MEMORY\nresolver_preload: {{ {self._account.public}: {account} }}\n"
        )

    def credentials(self, file: Path, *, permits: Sequence[str] = (), seconds: int | None = None) -> Path:
        """The file, for a user who may do all of `permits` (nothing: everything)."""
        user = Key(nkeys.PREFIX_BYTE_USER)
        rights = {"pub": {"allow": [*permits]}, "sub": {"allow": [*permits]}} if permits else {"pub": {}, "sub": {}}
        jwt = self._account.issue(user.public, "ann", {**_UNBOUNDED, **rights, "type": "user"}, seconds=seconds)
        file.write_text(
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            "************************* IMPORTANT *************************\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n",
            encoding="utf-8",
        )
        return file
