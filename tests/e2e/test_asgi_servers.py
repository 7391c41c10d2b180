"""The same application under other ASGI servers, and mounted inside FastAPI and Django, with unmodified clients."""

import asyncio
import json
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import websockets
from tests.support.asgi import FORMS, AsgiServer
from tests.support.client import StompClient
from tests.support.deadline import DEADLINE
from tests.support.node import talk

from postroom.delivery.proof import SIGN_SECONDS

pytestmark = pytest.mark.e2e

Make = Callable[..., AsgiServer]
CUTS_ITS_CLIENTS = ("hypercorn", "granian")
"""At SIGTERM, before it tells the application."""


@pytest.fixture(scope="module", params=FORMS)
def asgi(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsgiServer]:
    """One server of each form, for tests that do not hurt it."""
    server = AsgiServer(tmp_path_factory.mktemp(request.param), request.param)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def make_asgi(tmp_path: Path) -> Iterator[Make]:
    """Starts a server of the test's own."""
    started: list[AsgiServer] = []

    def make(form: str, *, config: str = "", store: str = "", options: Sequence[str] = ()) -> AsgiServer:
        started.append(AsgiServer(tmp_path, form, config=config, store=store, options=options))
        started[-1].start()
        return started[-1]

    yield make
    for server in started:
        server.close()


@pytest.mark.parametrize(
    ("library", "socket"),
    [
        ("stompjs-7", "ws"),
        ("stompjs-7", "sockjs-1.6"),
        ("stompjs-7", "sockjs-1.6:xhr-streaming"),
        ("stompjs-7", "sockjs-1.6:xhr-polling"),
        ("stompjs-2", "sockjs-1.1"),
        ("webstomp", "ws"),
    ],
)
def test_two_users_talk_in_node(asgi: AsgiServer, library: str, socket: str) -> None:
    talk(asgi, library, socket, mount=asgi.mount)


async def test_ack_client_confirms_all_up_to_it(asgi: AsgiServer) -> None:
    async with await StompClient.connect(asgi, "ac") as sender:
        for number in range(5):
            await sender.send("/user/ac-r/queue/x", str(number))
    async with await StompClient.connect(asgi, "ac-r") as receiver:
        await receiver.subscribe("/user/queue/x", ack="client")
        got = await receiver.messages(5)
        assert [message.text for message in got] == list("01234")
        await receiver.ack(got[2])
    async with await StompClient.connect(asgi, "ac-r") as receiver:
        await receiver.subscribe("/user/queue/x", ack="client-individual")
        again = await receiver.messages(2)
        assert [(message.text, message.headers["redelivered"]) for message in again] == [("3", "true"), ("4", "true")]
        await receiver.ack(again[1])
        await receiver.ack(again[0])
    async with await StompClient.connect(asgi, "ac-r") as receiver:
        await receiver.subscribe("/user/queue/x", ack="client")
        await receiver.barrier()
        assert receiver.waiting() == []


async def test_a_backlog_larger_than_the_write_buffer_arrives_whole(asgi: AsgiServer) -> None:
    body = "x" * 100_000
    async with await StompClient.connect(asgi, "big") as sender:
        for number in range(30):
            await sender.send("/user/big-r/queue/x", f"{number} {body}")
    async with await StompClient.connect(asgi, "big-r") as receiver:
        await receiver.subscribe("/user/queue/x", ack="client")
        for number in range(30):
            message = await receiver.message()
            assert message.text == f"{number} {body}"
            await receiver.ack(message, receipt=False)


async def test_the_server_says_why_it_refuses_a_handshake(asgi: AsgiServer) -> None:
    with pytest.raises(websockets.InvalidStatus) as refused:
        await websockets.connect(asgi.url, origin="http://elsewhere.example")  # type: ignore[arg-type]
    assert refused.value.response.status_code == 403


async def test_the_best_subprotocol_is_agreed_on(asgi: AsgiServer) -> None:
    async with websockets.connect(asgi.url, subprotocols=["v10.stomp", "v12.stomp"]) as pipe:  # type: ignore[list-item]
        assert pipe.subprotocol == "v12.stomp"


async def test_a_violation_is_told_and_closes(asgi: AsgiServer) -> None:
    client = await StompClient.connect(asgi, "wrong")
    await client.raw(b"NONSENSE\n\n\0")
    assert "NONSENSE" in (await client.error()).headers["message"]
    assert client.pipe.close_code == 1002


def test_http_is_served_below_the_mount(asgi: AsgiServer) -> None:
    assert json.loads(asgi.get("/readyz"))["ready"] is True
    assert json.loads(asgi.get("/chat-websocket/info"))["websocket"] is True
    assert asgi.metrics()["connections_accepted"] >= 0
    if asgi.mount:
        with urllib.request.urlopen(f"http://127.0.0.1:{asgi.port}/", timeout=DEADLINE) as answer:
            assert "/chat/ws" in answer.read().decode()


async def test_a_client_that_goes_is_noticed(asgi: AsgiServer) -> None:
    before = asgi.metrics()["sessions"]
    client = await StompClient.connect(asgi, "goes")
    await asgi.reaches("sessions", before + 1)
    await client.cut()
    await asgi.reaches("sessions", before)
    async with await StompClient.connect(asgi, "closes") as client:
        await client.disconnect()
    await asgi.reaches("sessions", before)


@pytest.mark.parametrize("form", FORMS)
async def test_what_was_receipted_survives_sigkill(make_asgi: Make, form: str) -> None:
    server = await asyncio.to_thread(make_asgi, form)
    async with await StompClient.connect(server, "ann") as ann:
        await ann.send("/user/bob/queue/x", "kept")
    await asyncio.to_thread(server.restart)
    async with await StompClient.connect(server, "bob") as bob:
        await bob.subscribe("/user/queue/x", ack="client")
        assert (await bob.message()).text == "kept"


@pytest.mark.parametrize("form", FORMS)
async def test_sigterm_loses_nothing_and_ends(make_asgi: Make, form: str) -> None:
    server = await asyncio.to_thread(make_asgi, form, config="drain-seconds = 0.5\n")
    client = await StompClient.connect(server, "ann")
    await client.send("/user/bob/queue/x", "kept")
    ended, code = await asyncio.gather(client.ended(), asyncio.to_thread(server.stop))
    if form not in CUTS_ITS_CLIENTS:
        assert ended == 1012, server.output()
    assert code in (0, -15), server.output()
    await asyncio.to_thread(server.start)
    async with await StompClient.connect(server, "bob") as bob:
        await bob.subscribe("/user/queue/x", ack="client")
        assert (await bob.message()).text == "kept"


async def test_two_heart_beats_apart_prove_what_came_before(make_asgi: Make) -> None:
    server = await asyncio.to_thread(make_asgi, "uvicorn")
    async with await StompClient.connect(server, "ann") as ann:
        await ann.send("/user/bob/queue/x", "kept")
    async with await StompClient.connect(server, "bob") as bob:
        await bob.subscribe("/user/queue/x", ack="auto")
        assert (await bob.message()).text == "kept"
        began = time.monotonic()
        while server.metrics()["confirmed"] == 0:
            assert time.monotonic() < began + SIGN_SECONDS + DEADLINE
            await bob.barrier()
        assert time.monotonic() > began + SIGN_SECONDS - 1
    async with await StompClient.connect(server, "bob") as bob:
        await bob.subscribe("/user/queue/x", ack="auto")
        await bob.barrier()
        assert bob.waiting() == []


async def test_what_nothing_proved_comes_again(make_asgi: Make) -> None:
    server = await asyncio.to_thread(make_asgi, "uvicorn")
    async with await StompClient.connect(server, "bob") as bob:
        await bob.subscribe("/user/queue/x", ack="auto")
        await bob.send("/user/bob/queue/x", "once")
        first = await bob.message()
        for _ in range(10):
            await bob.barrier()
    async with await StompClient.connect(server, "bob") as bob:
        await bob.subscribe("/user/queue/x", ack="auto")
        again = await bob.message()
        assert again.headers["redelivered"] == "true"
        assert again.headers["message-id"] == first.headers["message-id"]


async def test_workers_are_nodes_of_a_cluster(make_asgi: Make, fresh_url: str) -> None:
    server = await asyncio.to_thread(make_asgi, "uvicorn", store=fresh_url, options=("--workers", "2"))
    clients: dict[str, StompClient] = {}
    try:
        async with asyncio.timeout(2 * DEADLINE):
            while len(clients) < 2:  # the system chooses the worker
                client = await StompClient.connect(server, f"u{len(clients)}")
                if client.connected.headers["server"] in clients:
                    await client.cut()
                else:
                    clients[client.connected.headers["server"]] = client
        one, two = clients.values()
        await two.subscribe("/user/queue/x", ack="client")
        await one.send(f"/user/{two.connected.headers['user-name']}/queue/x", "from one to the other")
        assert (await two.message()).text == "from one to the other"
    finally:
        for client in clients.values():
            await client.cut()


def test_a_second_worker_on_one_file_is_refused_in_one_line(tmp_path: Path) -> None:
    server = AsgiServer(tmp_path, "uvicorn", options=("--workers", "2"))
    server.launch()
    try:
        end = time.monotonic() + 2 * DEADLINE
        while "is in use by another process: a SQLite store serves one node" not in server.output():
            assert time.monotonic() < end, server.output()
            time.sleep(0.02)
    finally:
        server.stop()


async def test_a_silent_client_gets_its_window_and_more_once_it_speaks(make_asgi: Make) -> None:
    server = await asyncio.to_thread(make_asgi, "uvicorn", config="[delivery]\nmax-in-flight-messages = 5\n")
    async with await StompClient.connect(server, "ann") as ann:
        for number in range(7):
            await ann.send("/user/bob/queue/x", str(number))
    async with await StompClient.connect(server, "bob") as bob:
        await bob.subscribe("/user/queue/x", ack="auto")
        assert [message.text for message in await bob.messages(5)] == list("01234")
        assert "no PING, no heart-beats" in server.output()
        rest = asyncio.get_running_loop().create_task(bob.messages(2))
        while not rest.done():
            await bob.raw(b"\n")
            await asyncio.wait({rest}, timeout=0.2)
        assert [message.text for message in rest.result()] == list("56")
