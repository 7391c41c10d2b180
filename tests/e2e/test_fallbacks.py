"""Unmodified client libraries over SockJS's HTTP transports, on one node and through nginx on three, nothing sticky."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.cluster import Nodes
from tests.support.deadline import DEADLINE
from tests.support.server import Server
from tests.support.services import require

pytestmark = pytest.mark.e2e

_HERE = Path(__file__).parent
_PACKAGES = _HERE.parent / "clients" / "node_modules"
_CONFIG = """
origins = ["http://app.test"]
[sockjs]
jsonp = true
iframe = true
client-url = "http://client.test/sockjs.js"
"""
_IN_BROWSERS = (
    "xhr-streaming@own@1.6",
    "xhr-streaming@other@1.6",
    "xhr-polling@other@1.6",
    "eventsource@own@1.6",
    "htmlfile@own@1.6",
    "jsonp-polling@own@1.6",
    "jsonp-polling@other@1.6",
    "iframe-eventsource@other@1.6",
    "iframe-htmlfile@other@1.6",
    "iframe-xhr-polling@other@1.6",
    "xhr-streaming@other@1.1",
    "eventsource@own@1.1",
    "jsonp-polling@own@1.1",
    "iframe-eventsource@other@1.1",
    "iframe-xhr-polling@other@1.1",
)


@pytest.fixture(scope="module", params=[1, 3], ids=["one-node", "three-nodes"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One node, or three behind nginx."""
    folder = tmp_path_factory.mktemp("served")
    if request.param == 1:
        server = Server(folder, config=_CONFIG)
    else:
        require("nginx", install="apt-get install nginx-light")
        valkey = request.getfixturevalue("valkey")
        server = Nodes(folder, f"{valkey.url}?prefix=fallbacks", count=request.param, config=_CONFIG)
    try:
        server.start()
        yield server
    finally:
        server.close()


def _node(server: Server, *command: str) -> str:
    require("node")
    require("npm packages", found=(_PACKAGES / "stompjs").is_dir(), install="cd tests/clients && npm ci")
    ended = subprocess.run(
        ["node", *command],
        env={**os.environ, "NODE_PATH": str(_PACKAGES)},
        capture_output=True,
        text=True,
        timeout=12 * DEADLINE,
        check=False,
    )
    assert ended.returncode == 0, f"{ended.stdout}{ended.stderr}\n{server.output()}"
    return ended.stdout


@pytest.mark.parametrize("transport", ["xhr-streaming", "xhr-polling"])
@pytest.mark.parametrize("socket", ["sockjs-1.1", "sockjs-1.6"])
@pytest.mark.parametrize("library", ["stompjs-2", "webstomp", "stompjs-7"])
def test_two_users_talk_over_http(served: Server, library: str, socket: str, transport: str) -> None:
    nodes = "3" if isinstance(served, Nodes) else "1"
    script = str(_HERE / "clients" / "talk.cjs")
    assert _node(served, script, library, f"{socket}:{transport}", str(served.port), nodes).endswith("talked\n")


@pytest.mark.timeout(150)
def test_every_transport_works_in_a_browser(served: Server) -> None:
    require("chromium", install="apt-get install chromium")
    program = shutil.which("chromium") or "chromium"
    said = _node(served, str(_HERE / "browser_transports.mjs"), program, str(served.port), *_IN_BROWSERS)
    assert said.split() == list(_IN_BROWSERS)
