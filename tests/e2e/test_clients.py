"""Unmodified client libraries against the real server."""

import queue
from typing import Any

import pytest
import stomp
from tests.support.cluster import Nodes
from tests.support.deadline import DEADLINE
from tests.support.scripts import talk
from tests.support.server import Server

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("socket", ["ws", "sockjs-1.1", "sockjs-1.6"])
@pytest.mark.parametrize("library", ["stompjs-2", "webstomp", "stompjs-7"])
def test_two_users_talk_in_node(shared_server: Server, library: str, socket: str) -> None:
    nodes = "2" if isinstance(shared_server, Nodes) else "1"
    talk(shared_server, "talk.cjs", library, socket, str(shared_server.port), nodes)


@pytest.mark.parametrize("library", ["stompjs-2", "webstomp", "stompjs-7"])
def test_a_client_written_for_spring(spring: Server, library: str) -> None:
    talk(spring, "spring.cjs", library, str(spring.port))


class _Listener(stomp.ConnectionListener):  # type: ignore[misc]  # stomp.py has no types
    def __init__(self) -> None:
        self.events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()

        self.acks: list[str] = []

    def next(self) -> tuple[str, Any]:
        """What happened next."""
        return self.events.get(timeout=DEADLINE)

    def on_message(self, frame: Any) -> None:
        self.acks.append(frame.headers["ack"])
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
    # Its heart-beat thread wakes up seldom: an interval of a second or more is what it can keep.
    connection = stomp.WSStompConnection([("127.0.0.1", shared_server.port)], ws_path="/ws", heartbeats=(2000, 2000))
    connection.set_listener("", listener)
    connection.connect("stomp-py", "any", wait=True)
    connection.subscribe("/user/queue/x", id="1", ack="client-individual", headers={"receipt": "subscribed"})
    assert listener.next() == ("receipt", "subscribed")
    for number, body in enumerate(("hello, 世界", "é" * 100_000, "")):
        connection.send("/user/stomp-py/queue/x", body, headers={"receipt": f"r{number}"})
        came = dict(listener.next() for _ in range(2))
        assert came == {"receipt": f"r{number}", "message": body}
        connection.ack(listener.acks.pop(), receipt=f"a{number}")
        assert listener.next() == ("receipt", f"a{number}")
    for number, end in enumerate((connection.commit, connection.abort)):
        transaction = connection.begin(f"t{number}")
        connection.send("/user/stomp-py/queue/x", f"of {number}", transaction=transaction)
        end(transaction, receipt=f"t{number}")
    came = dict(listener.next() for _ in range(2))
    assert came == {"receipt": "t0", "message": "of 0"}
    assert listener.next() == ("receipt", "t1")
    connection.nack(listener.acks.pop(), receipt="refused")
    assert {listener.next(), listener.next()} == {("receipt", "refused"), ("message", "of 0")}
    connection.disconnect(receipt="bye")
    assert listener.next() in {("receipt", "bye"), ("disconnected", None)}
