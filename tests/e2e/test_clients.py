"""Unmodified client libraries against the real server."""

import os
import queue
import subprocess
from pathlib import Path
from typing import Any

import pytest
import stomp
from tests.support.cluster import Nodes
from tests.support.deadline import DEADLINE
from tests.support.server import Server
from tests.support.services import require

pytestmark = pytest.mark.e2e

_HERE = Path(__file__).parent
_PACKAGES = _HERE.parent / "clients" / "node_modules"


@pytest.fixture
def packages() -> Path:
    """The npm packages that the tests drive."""
    require("node")
    require("npm packages", found=(_PACKAGES / "stompjs").is_dir(), install="cd tests/clients && npm ci")
    return _PACKAGES


@pytest.mark.parametrize("socket", ["ws", "sockjs-1.1", "sockjs-1.6"])
@pytest.mark.parametrize("library", ["stompjs-2", "webstomp", "stompjs-7"])
def test_two_users_talk_in_node(shared_server: Server, packages: Path, library: str, socket: str) -> None:
    nodes = "2" if isinstance(shared_server, Nodes) else "1"
    ended = subprocess.run(
        ["node", str(_HERE / "clients" / "talk.cjs"), library, socket, str(shared_server.port), nodes],
        env={**os.environ, "NODE_PATH": str(packages)},
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE,
        check=False,
    )
    assert ended.returncode == 0, f"{ended.stderr}\n{shared_server.output()}"
    assert ended.stdout.endswith("talked\n")


class _Listener(stomp.ConnectionListener):  # type: ignore[misc]  # stomp.py has no types
    def __init__(self) -> None:
        self.events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()

    def on_message(self, frame: Any) -> None:
        self.events.put(("message", frame.body))

    def on_receipt(self, frame: Any) -> None:
        self.events.put(("receipt", frame.headers["receipt-id"]))

    def on_error(self, frame: Any) -> None:
        self.events.put(("error", frame.headers.get("message")))

    def on_disconnected(self) -> None:
        self.events.put(("disconnected", None))


# stomp.py leaves its socket to the garbage collector.
@pytest.mark.filterwarnings("default::ResourceWarning", "default::pytest.PytestUnraisableExceptionWarning")
def test_stomp_py_talks_over_a_websocket(shared_server: Server) -> None:
    listener = _Listener()
    connection = stomp.WSStompConnection([("127.0.0.1", shared_server.port)], ws_path="/ws")
    connection.set_listener("", listener)
    connection.connect("stomp-py", "any", wait=True)
    connection.subscribe("/user/queue/x", id="1", ack="auto", headers={"receipt": "subscribed"})
    assert listener.events.get(timeout=DEADLINE) == ("receipt", "subscribed")
    connection.send("/user/stomp-py/queue/x", "hello, 世界", headers={"receipt": "r1"})
    came = {listener.events.get(timeout=DEADLINE) for _ in range(2)}
    assert came == {("receipt", "r1"), ("message", "hello, 世界")}
    connection.disconnect(receipt="bye")
    assert listener.events.get(timeout=DEADLINE) in {("receipt", "bye"), ("disconnected", None)}
