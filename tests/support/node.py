"""Unmodified clients of JavaScript, in Node."""

import os
import subprocess
from pathlib import Path
from typing import Protocol

from tests.support.deadline import DEADLINE
from tests.support.services import require

_TESTS = Path(__file__).parents[1]
PACKAGES = _TESTS / "clients" / "node_modules"


class Talkable(Protocol):
    """What the clients connect to."""

    port: int

    def output(self) -> str: ...


def talk(
    server: Talkable, library: str, way: str, *, nodes: int = 1, mount: str = "", authority: Path | None = None
) -> None:
    """Let two users talk through `library` over `way` (see talk.cjs); with TLS where `authority` is to be trusted."""
    require("node")
    require("npm packages", found=(PACKAGES / "stompjs").is_dir(), install="cd tests/clients && npm ci")
    environment = {**os.environ, "NODE_PATH": str(PACKAGES)}
    if authority is not None:
        environment["NODE_EXTRA_CA_CERTS"] = str(authority)
    script = _TESTS / "e2e" / "clients" / "talk.cjs"
    tls = [] if authority is None else ["tls"]
    ended = subprocess.run(
        ["node", str(script), library, way, str(server.port), str(nodes), mount, *tls],
        env=environment,
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE,
        check=False,
    )
    assert ended.returncode == 0, f"{ended.stderr}\n{server.output()}"
    assert ended.stdout.endswith("talked\n")
