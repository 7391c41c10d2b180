"""Unmodified client libraries over SockJS's HTTP transports, forced to each that Node.js can do."""

import os
import subprocess
from pathlib import Path

import pytest
from tests.support.deadline import DEADLINE
from tests.support.server import Server
from tests.support.services import require

pytestmark = pytest.mark.e2e

_HERE = Path(__file__).parent
_PACKAGES = _HERE.parent / "clients" / "node_modules"


@pytest.fixture(scope="module")
def arrangement() -> str:
    """One node."""
    return "one-node"


@pytest.mark.parametrize("transport", ["xhr-streaming", "xhr-polling"])
@pytest.mark.parametrize("socket", ["sockjs-1.1", "sockjs-1.6"])
@pytest.mark.parametrize("library", ["stompjs-2", "webstomp", "stompjs-7"])
def test_two_users_talk_over_http(shared_server: Server, library: str, socket: str, transport: str) -> None:
    require("node")
    require("npm packages", found=(_PACKAGES / "stompjs").is_dir(), install="cd tests/clients && npm ci")
    ended = subprocess.run(
        ["node", str(_HERE / "clients" / "talk.cjs"), library, f"{socket}:{transport}", str(shared_server.port), "1"],
        env={**os.environ, "NODE_PATH": str(_PACKAGES)},
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE,
        check=False,
    )
    assert ended.returncode == 0, f"{ended.stderr}\n{shared_server.output()}"
    assert ended.stdout.endswith("talked\n")
