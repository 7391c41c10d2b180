"""The ASGI transport against a server that is a few lines: what it sends, what it is told, in which order."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.deadline import DEADLINE

from postroom.errors import HandshakeRefused
from postroom.transport import websocket
from postroom.transport.asgi import AsgiTransport, handshake_of, messages, route_path, serve_websocket
from postroom.transport.base import Endpoint, Handshake, Receiver, Transport


class Peer:
    """Plays the server: `put` is what the client sends, `sent` what it would get."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()  # noqa: TID251  (a test's own)
        self.sent: list[Any] = []
        self.writable = asyncio.Event()
        self.writable.set()
        self.gone = False
        self.received = 0

    def put(self, kind: str, **content: Any) -> None:
        self.incoming.put_nowait({"type": f"websocket.{kind}", **content})

    async def receive(self) -> Any:
        self.received += 1
        return await self.incoming.get()

    async def send(self, message: Any) -> None:
        await self.writable.wait()
        if self.gone:
            raise OSError("the client is gone")
        self.sent.append(message)


class Listener:
    """Remembers what it is told."""

    def __init__(self, pipe: AsgiTransport) -> None:
        self.pipe = pipe
        self.got: list[bytes] = []
        self.writable_again = asyncio.Event()
        self.end: tuple[int, str] | None = None
        self.on_message: Callable[[bytes], None] = lambda data: None
        self.arrived = asyncio.Event()

    def receive(self, data: bytes) -> None:
        self.got.append(data)
        self.arrived.set()
        self.on_message(data)

    def proved(self, token: bytes, *, alive: bool = True) -> None:
        raise AssertionError("nothing is proved over ASGI")

    def writable(self) -> None:
        self.writable_again.set()

    def lost(self, code: int, reason: str) -> None:
        assert self.end is None
        self.end = (code, reason)


class Connection:
    """One open connection, its two ends, and the task that serves it."""

    def __init__(self, peer: Peer, listener: Listener, serving: asyncio.Task[None]) -> None:
        self.peer, self.listener, self.serving = peer, listener, serving

    async def over(self) -> tuple[int, str]:
        async with asyncio.timeout(DEADLINE):
            await self.serving
        assert self.listener.end is not None
        return self.listener.end


SCOPE: dict[str, Any] = {
    "type": "websocket",
    "path": "/ws",
    "headers": [(b"Host", b"x"), (b"cookie", b"a=1"), (b"cookie", b"b=2")],
    "client": ("10.0.0.7", 1),
    "server": ("10.0.0.1", 80),
    "subprotocols": ["v99.stomp", "v12.stomp"],
    "scheme": "wss",
}


def no_check(handshake: Handshake) -> None:
    """Everybody may come in."""


async def connect(scope: dict[str, Any] = SCOPE, *, max_bytes: int = 1000) -> Connection:
    peer = Peer()
    peer.put("connect")
    opened: asyncio.Future[Listener] = asyncio.get_running_loop().create_future()

    def accept(handshake: Handshake, pipe: Transport) -> Receiver:
        assert isinstance(pipe, AsgiTransport)
        listener = Listener(pipe)
        opened.set_result(listener)
        return listener

    endpoint = Endpoint(accept=accept, check=no_check, subprotocols=("v12.stomp", "v11.stomp"))
    serving = asyncio.get_running_loop().create_task(
        serve_websocket(scope, peer.receive, peer.send, endpoint, path="/ws", max_bytes=max_bytes)
    )
    async with asyncio.timeout(DEADLINE):
        return Connection(peer, await opened, serving)


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_the_best_subprotocol_that_both_speak_is_agreed_on() -> None:
    connection = await connect()
    assert connection.peer.sent == [{"type": "websocket.accept", "subprotocol": "v12.stomp", "headers": []}]
    connection.peer.put("disconnect", code=1001, reason="bye")
    assert await connection.over() == (1001, "bye")


async def test_messages_go_both_ways_in_order_and_keep_their_kind() -> None:
    connection = await connect()
    peer, listener = connection.peer, connection.listener
    peer.put("receive", text="grüß", bytes=None)
    peer.put("receive", bytes=b"\xff", text=None)
    peer.put("receive", text="")
    pipe = listener.pipe
    pipe.write(pipe.framing("ä".encode()) + pipe.framing(b"x" * 70_000))
    pipe.write(pipe.framing(b"\xff"))
    pipe.write(pipe.framing(b""))
    await turns()
    assert listener.got == ["grüß".encode(), b"\xff", b""]
    told = [(sent.get("text"), sent.get("bytes")) for sent in peer.sent[1:]]
    assert told == [("ä", None), ("x" * 70_000, None), (None, b"\xff"), ("", None)]
    peer.put("disconnect", code=1005)
    assert await connection.over() == (1005, "")


async def test_the_close_leaves_behind_what_was_written() -> None:
    connection = await connect()
    pipe = connection.listener.pipe
    pipe.write(pipe.framing(b"last words"))
    pipe.close(1008, "é" * 100)
    pipe.write(pipe.framing(b"too late"))
    assert await connection.over() == (1008, "é" * 100)
    assert connection.peer.sent[1:] == [
        {"type": "websocket.send", "text": "last words"},
        {"type": "websocket.close", "code": 1008, "reason": "é" * 61},
    ]


async def test_what_the_server_has_not_taken_counts_as_buffered() -> None:
    connection = await connect()
    peer, listener = connection.peer, connection.listener
    peer.writable.clear()
    data = listener.pipe.framing(b"x" * 10_000)
    listener.pipe.write(data)
    listener.pipe.write(data)
    await turns()
    assert listener.pipe.buffered_bytes == 2 * len(data)
    assert not listener.writable_again.is_set()
    peer.writable.set()
    async with asyncio.timeout(DEADLINE):
        await listener.writable_again.wait()
    assert listener.pipe.buffered_bytes == 0
    peer.put("disconnect", code=1000)
    await connection.over()


async def test_nothing_is_received_while_reading_is_paused() -> None:
    connection = await connect()
    peer, listener = connection.peer, connection.listener
    listener.on_message = lambda data: listener.pipe.pause_reading()
    for number in range(3):
        peer.put("receive", text=str(number))
    await turns()
    assert listener.got == [b"0"]
    assert peer.incoming.qsize() >= 1, "what is not read stays with the server"
    for _ in range(2):
        listener.pipe.resume_reading()
        await turns()
    assert listener.got == [b"0", b"1", b"2"]
    listener.pipe.resume_reading()
    peer.put("disconnect", code=1000)
    await connection.over()


async def test_a_client_that_goes_while_it_is_paused_is_noticed_when_it_is_read_again() -> None:
    connection = await connect()
    connection.listener.pipe.pause_reading()
    connection.peer.put("receive", text="held")
    connection.peer.put("disconnect", code=1001)
    await turns()
    assert connection.listener.end is None
    connection.listener.pipe.resume_reading()
    assert await connection.over() == (1001, "")
    assert connection.listener.got == [b"held"]


async def test_abort_ends_at_once_whatever_waits() -> None:
    connection = await connect()
    connection.peer.writable.clear()
    connection.listener.pipe.write(connection.listener.pipe.framing(b"never"))
    await turns()
    connection.listener.pipe.abort()
    connection.listener.pipe.abort()
    assert await connection.over() == (websocket.ABNORMAL, "")
    assert len(connection.peer.sent) == 1


async def test_a_send_that_fails_is_the_end() -> None:
    connection = await connect()
    connection.peer.gone = True
    connection.listener.pipe.write(connection.listener.pipe.framing(b"x"))
    assert await connection.over() == (websocket.ABNORMAL, "")


async def test_a_server_that_cancels_us_has_told_the_receiver() -> None:
    connection = await connect()
    connection.serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connection.serving
    assert connection.listener.end == (websocket.ABNORMAL, "")


@pytest.mark.parametrize(
    ("content", "code"), [({"text": "x" * 1001}, 1009), ({"bytes": b"x" * 1001}, 1009), ({"text": "\ud800"}, 1007)]
)
async def test_what_is_too_large_or_no_text_is_refused(content: dict[str, Any], code: int) -> None:
    connection = await connect()
    connection.peer.put("receive", **content)
    assert (await connection.over())[0] == code
    assert connection.listener.got == []


async def test_a_receiver_that_fails_costs_its_connection_alone() -> None:
    connection = await connect()

    def broken(data: bytes) -> None:
        raise RuntimeError("broken")

    connection.listener.on_message = broken
    connection.peer.put("receive", text="x")
    assert (await connection.over())[0] == websocket.INTERNAL_ERROR


@pytest.mark.parametrize(
    ("extensions", "sent"),
    [
        (
            {"websocket.http.response": {}},
            [("websocket.http.response.start", 429), ("websocket.http.response.body", None)],
        ),
        ({}, [("websocket.close", None)]),
        (None, [("websocket.close", None)]),
    ],
)
async def test_a_refusal_comes_before_the_upgrade(extensions: Any, sent: Any) -> None:
    peer = Peer()
    peer.put("connect")

    def check(handshake: Handshake) -> None:
        raise HandshakeRefused(429, "too many")

    def accept(handshake: Handshake, pipe: Transport) -> Receiver:
        raise AssertionError("it was refused")

    await serve_websocket(
        {**SCOPE, "extensions": extensions},
        peer.receive,
        peer.send,
        Endpoint(accept=accept, check=check),
        path="/ws",
        max_bytes=10,
    )
    assert [(message["type"], message.get("status")) for message in peer.sent] == sent


def test_the_handshake_says_what_the_scope_does() -> None:
    handshake = handshake_of({**SCOPE, "query_string": b"a=%20"}, "/ws")
    assert handshake.headers == {"host": "x", "cookie": "a=1, b=2"}
    assert (handshake.query, handshake.peer_address, handshake.secure) == ("a=%20", "10.0.0.7", True)


@pytest.mark.parametrize(
    ("client", "server", "address"),
    [
        (None, ("/run/x.sock", None), "unix"),
        (("", 0), ("/run/x.sock", None), "unix"),
        (None, None, ""),
        (None, ("x", 80), ""),
    ],
)
def test_only_a_unix_socket_is_called_one(client: Any, server: Any, address: str) -> None:
    assert handshake_of({**SCOPE, "client": client, "server": server}, "/ws").peer_address == address


@pytest.mark.parametrize(
    ("path", "root", "below"),
    [
        ("/ws", "", "/ws"),
        ("/chat/ws", "/chat", "/ws"),
        ("/chat/ws", "/chat/", "/ws"),
        ("/ws", "/chat", "/ws"),
        ("/chatter/ws", "/chat", "/chatter/ws"),
        ("/chat", "/chat", ""),
    ],
)
def test_the_path_is_that_below_the_mount(path: str, root: str, below: str) -> None:
    assert route_path({"path": path, "root_path": root}) == below


@given(st.lists(st.binary(max_size=300) | st.integers(65_500, 70_000).map(bytes), max_size=5))
def test_what_the_framing_wrapped_comes_out_again(payloads: list[bytes]) -> None:
    joined = b"".join(map(websocket.message, payloads))
    assert list(messages(joined)) == [(websocket.is_utf8(payload), payload) for payload in payloads]
