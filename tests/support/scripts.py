"""Scripts for Node.js that drive unmodified client libraries."""

import os
import subprocess
from pathlib import Path

from tests.support.deadline import DEADLINE
from tests.support.server import Server
from tests.support.services import require

_TESTS = Path(__file__).parent.parent
_PACKAGES = _TESTS / "clients" / "node_modules"


def node_packages() -> Path:
    """The npm packages that the tests drive; skips where they are missing."""
    require("node")
    require("npm packages", found=(_PACKAGES / "stompjs").is_dir(), install="cd tests/clients && npm ci")
    return _PACKAGES


def talk(server: Server, script: str, *arguments: str) -> None:
    """Let a script of `tests/e2e/clients` drive its library, to the end."""
    ended = subprocess.run(
        ["node", str(_TESTS / "e2e" / "clients" / script), *arguments],
        env={**os.environ, "NODE_PATH": str(node_packages())},
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE,
        check=False,
    )
    assert ended.returncode == 0, f"{ended.stderr}\n{server.output()}"
    assert ended.stdout.endswith("talked\n")
