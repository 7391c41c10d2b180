"""Proof of receipt over SockJS's HTTP transports: only the next receiving request proves a response."""

from collections.abc import Iterator

import pytest
from tests.support.fallback import Fallback
from tests.support.server import Server

CONFIG = "[sockjs]\nprove-seconds = 0.3\ndisconnect-seconds = 2\n[delivery]\nconfirm-seconds = 0\n"
QUEUE = "/user/queue/proof"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A node that ends quiet responses soon."""
    server = Server(tmp_path_factory.mktemp("node"), config=CONFIG)
    server.start()
    yield server
    server.close()


def tell(server: Server, user: str, *bodies: bytes) -> None:
    with Fallback(server.port) as sender:
        sender.open("sender")
        for body in bodies:
            sender.say("SEND", {"destination": f"/user/{user}/queue/proof", "receipt": "r"}, body)
            assert sender.frame().command == "RECEIPT"


@pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "polling"])
def test_what_no_request_proved_comes_again_marked(server: Server, streaming: bool) -> None:
    user = f"unproven-{streaming}"
    with Fallback(server.port, streaming=streaming) as client:
        client.open(user)
        client.subscribe(QUEUE)
        tell(server, user, b"once")
        assert client.frame().text == "once"
        if streaming:
            client.until_response_ends()
    with Fallback(server.port, streaming=streaming) as again:
        again.open(user)
        again.subscribe(QUEUE)
        came = again.frame()
        assert (came.text, came.headers.get("redelivered")) == ("once", "true")


@pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "polling"])
async def test_the_next_request_proves_what_the_last_one_brought(server: Server, streaming: bool) -> None:
    user = f"proven-{streaming}"
    with Fallback(server.port, streaming=streaming) as client:
        client.open(user)
        client.subscribe(QUEUE)
        confirmed = server.metrics()["confirmed"]
        tell(server, user, b"once")
        assert client.frame().text == "once"
        if streaming:
            # The server ends the response, since it holds what only another request proves.
            client.until_response_ends()
        assert server.metrics()["confirmed"] == confirmed
        client.request() if streaming else client.say("SEND", {"destination": "/topic/x"})
        if not streaming:
            assert server.metrics()["confirmed"] == confirmed, "a request on another connection proves nothing"
            tell(server, user, b"twice")
            assert client.frame().text == "twice"
        await server.reaches("confirmed", confirmed + 1)
    with Fallback(server.port, streaming=streaming) as again:
        again.open(user)
        again.subscribe(QUEUE)
        tell(server, user, b"new")
        bodies = [again.frame().text]
        if bodies == ["twice"]:
            bodies = [again.frame().text]
        assert bodies == ["new"]
