"""STOMP over plain TCP, with and without TLS, as clients see it."""

import asyncio
import queue
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import stomp
from tests.support.certificates import self_signed
from tests.support.client import StompClient
from tests.support.deadline import DEADLINE
from tests.support.tcp import TcpServer

pytestmark = pytest.mark.e2e

CONNECT = b"CONNECT\naccept-version:1.2\nhost:x\nlogin:%s\n\n\0"


def tls_config(folder: Path) -> tuple[str, Path]:
    certificate, key = self_signed(folder)
    return f'[tls]\ncertificate = "{certificate}"\nkey = "{key}"\n', certificate


@pytest.fixture(scope="module", params=["plain", "tls"])
def tcp(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TcpServer]:
    folder = tmp_path_factory.mktemp("tcp")
    config, certificate = tls_config(folder) if request.param == "tls" else ("", None)
    beats = "[heart-beat]\nsend-ms = 100\nreceive-ms = 100\n"
    server = TcpServer(folder, config=beats + config, authority=certificate)
    server.start()
    yield server
    server.close()


async def test_two_users_talk(tcp: TcpServer) -> None:
    async with await tcp.client("talk-1") as ann, await tcp.client("talk-2") as ben:
        await ben.subscribe("/user/queue/x")
        await ann.send("/user/talk-2/queue/x", "hello, 世界")
        message = await ben.message()
        assert message.text == "hello, 世界"
        assert message.headers["sender"] == "talk-1"
        assert message.headers["content-length"] == "13"


async def test_what_arrived_is_confirmed_without_the_clients_help(tcp: TcpServer) -> None:
    async with await tcp.client("auto-1") as ann:
        for number in range(3):
            await ann.send("/user/auto-2/queue/x", str(number))
    async with await tcp.client("auto-2") as ben:
        await ben.subscribe("/user/queue/x")
        assert [message.text for message in await ben.messages(3)] == ["0", "1", "2"]
        # Its machine has them: nothing more is asked of the client, which has sent no heart-beat.
        for _ in range(40):
            await asyncio.sleep(0.02)
            await ben.command("ACK", {"id": "names nothing"})
    async with await tcp.client("auto-2") as ben, await tcp.client("auto-1") as ann:
        await ben.subscribe("/user/queue/x")
        await ann.send("/user/auto-2/queue/x", "new")
        assert (await ben.message()).text == "new"


async def test_frames_may_come_in_any_pieces(tcp: TcpServer) -> None:
    async with aclosing(await tcp.pipe()) as pipe:
        wire = CONNECT % b"pieces" + b"\r\n\nSEND\r\ndestination:/topic/x\nreceipt:r\n\nbody\0\n\n"
        for at in range(len(wire)):
            await pipe.send(wire[at : at + 1])
        assert (await pipe.recv()).startswith(b"CONNECTED\n")
        assert b"receipt-id:r" in await pipe.recv()


async def test_many_frames_in_one_piece_are_answered_in_order(tcp: TcpServer) -> None:
    async with aclosing(await tcp.pipe()) as pipe:
        sends = b"".join(b"SEND\ndestination:/topic/x\nreceipt:%d\n\n\0" % number for number in range(500))
        await pipe.send(CONNECT % b"many" + sends)
        assert (await pipe.recv()).startswith(b"CONNECTED\n")
        assert [b"receipt-id:%d\n" % n in await pipe.recv() for n in range(500)] == [True] * 500


async def test_a_violation_gets_an_error_then_the_end(tcp: TcpServer) -> None:
    async with await tcp.client("wrong") as client:
        await client.raw(b"NONSENSE\nreceipt:r9\n\n\0")
        error = await client.error()
        assert "NONSENSE" in error.headers["message"]
        assert error.headers["receipt-id"] == "r9"


async def test_http_sent_here_by_a_browser_is_refused(tcp: TcpServer) -> None:
    async with StompClient(await tcp.pipe()) as client:
        await client.raw(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n" + CONNECT % b"smuggled" + b"\0")
        assert (await client.error()).headers["message"]
        assert not client.inbox


async def test_disconnect_is_receipted_then_closed(tcp: TcpServer) -> None:
    async with await tcp.client("bye") as client:
        await client.disconnect()


async def test_a_client_that_stops_sending_heart_beats_is_told_and_closed(tcp: TcpServer) -> None:
    # What its machine acknowledges is no sign of life of the client.
    async with (
        await tcp.client("silent", headers={"heart-beat": "300,0"}) as client,
        await tcp.client("talker") as talker,
    ):
        await client.raw(b"SUBSCRIBE\nid:s\ndestination:/user/queue/x\n\n\0")

        async def talk() -> None:
            while True:
                await talker.send("/user/silent/queue/x", "are you there?", receipt=False)
                await asyncio.sleep(0.05)

        async with asyncio.TaskGroup() as tasks:
            talking = tasks.create_task(talk())
            error = await client.error()
            talking.cancel()
        assert "nothing heard" in error.headers["message"]


async def test_the_server_beats_for_a_client_that_wants_it(tcp: TcpServer) -> None:
    async with aclosing(await tcp.pipe()) as pipe:
        await pipe.send(b"CONNECT\naccept-version:1.2\nhost:x\nlogin:beat\nheart-beat:0,200\n\n\0")
        assert b"CONNECTED" in await pipe.recv()
        async with asyncio.timeout(DEADLINE):
            assert await pipe.reader.readexactly(3) == b"\n\n\n"


class _Listener(stomp.ConnectionListener):  # type: ignore[misc]  # stomp.py has no types
    def __init__(self) -> None:
        self.events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()

    def on_message(self, frame: Any) -> None:
        self.events.put(("message", frame.body))

    def on_receipt(self, frame: Any) -> None:
        self.events.put(("receipt", frame.headers["receipt-id"]))

    def on_error(self, frame: Any) -> None:
        self.events.put(("error", frame.headers.get("message")))


# stomp.py leaves its socket to the garbage collector.
@pytest.mark.filterwarnings("default::ResourceWarning", "default::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2"])
def test_stomp_py_talks_over_tcp(tcp: TcpServer, version: str) -> None:
    kinds = {"1.0": stomp.Connection10, "1.1": stomp.Connection11, "1.2": stomp.Connection12}
    listener = _Listener()
    beats = {} if version == "1.0" else {"heartbeats": (1000, 1000)}
    connection = kinds[version]([("127.0.0.1", tcp.stomp_port)], **beats)
    if tcp.tls is not None:
        connection.set_ssl([("127.0.0.1", tcp.stomp_port)], ca_certs=str(tcp.folder / "certificate.pem"))
    connection.set_listener("", listener)
    user = f"py-{version.replace('.', '')}"
    connection.connect(user, "any", wait=True)
    connection.subscribe("/user/queue/x", id="1", ack="client", headers={"receipt": "subscribed"})
    assert listener.events.get(timeout=DEADLINE) == ("receipt", "subscribed")
    connection.begin("t")
    for number in range(2):
        connection.send(f"/user/{user}/queue/x", f"hello {number}", transaction="t")
    connection.commit("t", receipt="committed")
    came = [listener.events.get(timeout=DEADLINE) for _ in range(3)]
    assert ("receipt", "committed") in came
    assert [what for what in came if what[0] == "message"] == [("message", "hello 0"), ("message", "hello 1")]
    connection.disconnect(receipt="bye")
    assert listener.events.get(timeout=DEADLINE) == ("receipt", "bye")
