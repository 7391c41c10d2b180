"""Clients that break every rule: each gets its answer and its close, and the server stays as it was."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from tests.support.client import StompClient
from tests.support.deadline import DEADLINE
from tests.support.frames import Frame, decode, encode
from tests.support.raw import BINARY, CLOSE, PING, TEXT, RawWebSocket, frame, handshake
from tests.support.server import Server

from postroom.auth.cookie import CookieAuthenticator
from postroom.identity import UserName

pytestmark = pytest.mark.fault

SECRET = "0123456789abcdef" * 2
CONFIG = f"""
[auth.cookie]
secret = "{SECRET}"
[limits]
connect-seconds = 0.5
request-seconds = 0.5
max-message-bytes = 65536
subscriptions-per-session = 10
write-buffer-bytes = 262144
"""
GROWTH = 24 * 1024 * 1024
"""Resident memory that a whole module of attacks may leave behind."""

CONNECT = encode("CONNECT", {"accept-version": "1.2", "host": "test", "login": "hostile", "heart-beat": "0,0"})


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server under attack; its memory is looked at when all is over."""
    server = Server(tmp_path_factory.mktemp("node"), config=CONFIG)
    server.start()
    before = server.rss()
    yield server
    grown = server.rss() - before
    output = server.output(100_000)
    server.close()
    assert grown < GROWTH, f"{grown >> 20} MiB more than before"
    assert "Traceback" not in output, output


@pytest.fixture(autouse=True)
async def unharmed(target: Server) -> AsyncIterator[None]:
    """After each attack the server serves others, and has let go of the attacker."""
    yield
    async with await StompClient.connect(target, "witness") as witness:
        await witness.subscribe("/topic/witness")
        await witness.send("/topic/witness", "alive")
        assert (await witness.message()).text == "alive"
    await target.reaches("connections", 0)
    await target.reaches("subscriptions", 0)


async def answer(pipe: RawWebSocket) -> tuple[list[Frame], int | None]:
    """All STOMP frames until the server closes, and its close code."""
    frames = [found for data in await pipe.ended() for found in decode(data)]
    await pipe.close()
    return frames, pipe.close_code


# ── STOMP ─────────────────────────────────────────────────────────────────────────────────────────────────

BEFORE_CONNECT: dict[str, tuple[bytes, str]] = {
    "garbage": (b"this is no STOMP at all, is it?\n\n\0", "first frame|no command|begin"),
    "long garbage": (b"x" * 1000, "begin"),
    "binary": (bytes(range(1, 256)), ""),
    "send first": (encode("SEND", {"destination": "/topic/a"}), "first frame must be CONNECT"),
    "no version": (encode("CONNECT", {"accept-version": "7.7", "host": "x"}), "version"),
    "lower case": (b"connect\naccept-version:1.2\n\n\0", "connect"),
    "no colon": (b"CONNECT\naccept-version\n\n\0", "colon"),
    "bad heart-beat": (encode("CONNECT", {"accept-version": "1.2", "heart-beat": "often"}), "heart-beat"),
    "huge heart-beat": (encode("CONNECT", {"accept-version": "1.2", "heart-beat": "9" * 40 + ",0"}), "heart-beat"),
    "not UTF-8": (b"CONNECT\nlogin:\xff\xfe\n\n\0", "UTF-8"),
    "a body": (b"CONNECT\naccept-version:1.2\n\nbody\0", "body"),
    "no end of headers": (b"CONNECT\naccept-version:1.2\0", "headers"),
    "empty device": (encode("CONNECT", {"accept-version": "1.2", "device": ""}), "device"),
    "long device": (encode("CONNECT", {"accept-version": "1.2", "device": "d" * 65}), "device"),
    "long login": (encode("CONNECT", {"accept-version": "1.2", "login": "u" * 256}), "name"),
    "control character in login": (encode("CONNECT", {"accept-version": "1.2", "login": "a\x07"}), "name"),
}

AFTER_CONNECT: dict[str, tuple[bytes, str]] = {
    "connect again": (CONNECT, "connected already"),
    "unknown command": (encode("FETCH", {}), "FETCH"),
    "server command": (encode("MESSAGE", {"destination": "/topic/a"}), "MESSAGE"),
    "no destination": (encode("SEND", {}), "destination"),
    "subscribe without destination": (encode("SUBSCRIBE", {"id": "1"}), "destination"),
    "subscribe without id": (encode("SUBSCRIBE", {"destination": "/topic/a"}), "id"),
    "unknown ack mode": (encode("SUBSCRIBE", {"id": "1", "destination": "/topic/a", "ack": "maybe"}), "ack"),
    "same id twice": (encode("SUBSCRIBE", {"id": "1", "destination": "/topic/a"}) * 2, "'1' already"),
    "unsubscribe without id": (encode("UNSUBSCRIBE", {}), "id"),
    "ack without id": (encode("ACK", {}), "id"),
    "nack without id": (encode("NACK", {}), "id"),
    "begin without name": (encode("BEGIN", {}), "transaction"),
    "begin twice": (encode("BEGIN", {"transaction": "t"}) * 2, "already"),
    "commit of nothing": (encode("COMMIT", {"transaction": "t"}), "no open transaction"),
    "abort of nothing": (encode("ABORT", {"transaction": "t"}), "no open transaction"),
    "send in no transaction": (encode("SEND", {"destination": "/topic/a", "transaction": "t"}), "no open transaction"),
    "many transactions": (b"".join(encode("BEGIN", {"transaction": str(n)}) for n in range(11)), "at most 10"),
    "undefined escape": (b"SEND\ndestination:/topic/a\nx:\\t\n\n\0", "escape"),
    "escape at the end": (b"SEND\ndestination:/topic/a\nx:\\\n\n\0", "escape"),
    "content-length no number": (b"SEND\ndestination:/topic/a\ncontent-length:many\n\n\0", "content-length"),
    "negative content-length": (b"SEND\ndestination:/topic/a\ncontent-length:-1\n\n\0", "content-length"),
    "content-length too small": (b"SEND\ndestination:/topic/a\ncontent-length:2\n\nabcdef\0", "content-length"),
    "content-length too large": (b"SEND\ndestination:/topic/a\ncontent-length:65537\n\n", "at most 65536"),
    "absurd content-length": (b"SEND\ndestination:/topic/a\ncontent-length:" + b"9" * 400 + b"\n\n", "at most 65536"),
    "body too large": (b"SEND\ndestination:/topic/a\n\n" + b"x" * 65537 + b"\0", "at most 65536"),
    "endless body": (b"SEND\ndestination:/topic/a\n\n" + b"x" * 65537, "at most 65536"),
    "header too long": (b"SEND\ndestination:/topic/a\nx:" + b"x" * 9000 + b"\n\n\0", "header"),
    "endless header": (b"SEND\ndestination:/topic/a\nx:" + b"x" * 9000, "header"),
    "too many headers": (b"SEND\n" + b"".join(b"h%d:x\n" % n for n in range(65)) + b"\n\0", "at most 64 headers"),
    "body of a subscribe": (b"SUBSCRIBE\nid:1\ndestination:/topic/a\n\nbody\0", "body"),
    "header not UTF-8": (b"SEND\ndestination:/topic/\xff\n\n\0", "UTF-8"),
    "bare carriage return": (b"SEND\rdestination:/topic/a\r\r\0\n\n\0", ""),
    "too many subscriptions": (
        b"".join(encode("SUBSCRIBE", {"id": str(n), "destination": "/topic/a"}) for n in range(11)),
        "at most 10 subscriptions",
    ),
}


def _said(frames: list[Frame], wanted: str) -> None:
    assert frames, "the server closed without a word"
    last = frames[-1]
    assert last.command == "ERROR", frames
    assert last.headers["message"]
    told = last.headers["message"] + last.text
    assert any(part in told for part in wanted.split("|")), told
    assert [found.command for found in frames].count("ERROR") == 1


@pytest.mark.parametrize("name", BEFORE_CONNECT)
async def test_a_broken_first_frame(target: Server, name: str) -> None:
    data, wanted = BEFORE_CONNECT[name]
    pipe = await RawWebSocket.open(target.port)
    await pipe.send(data)
    frames, code = await answer(pipe)
    _said(frames, wanted)
    assert code in (1002, 1008)


@pytest.mark.parametrize("split", [0, 1], ids=["whole", "in pieces"])
@pytest.mark.parametrize("name", AFTER_CONNECT)
async def test_a_broken_frame(target: Server, name: str, split: int) -> None:
    data, wanted = AFTER_CONNECT[name]
    pipe = await RawWebSocket.open(target.port)
    await pipe.send(CONNECT)
    assert decode(await pipe.recv())[0].command == "CONNECTED"
    try:
        for start in range(0, len(data), 997 if split else len(data)):
            await pipe.send(data[start : start + (997 if split else len(data))])
    except ConnectionError:
        pass  # the server has heard enough
    frames, code = await answer(pipe)
    _said(frames, wanted)
    assert code in (1002, 1008)


async def test_what_comes_behind_a_broken_frame_is_not_handled(target: Server) -> None:
    async with await StompClient.connect(target, "listener") as listener:
        await listener.subscribe("/topic/behind")
        pipe = await RawWebSocket.open(target.port)
        await pipe.send(CONNECT + encode("SEND", {}) + encode("SEND", {"destination": "/topic/behind"}, b"no"))
        await answer(pipe)
        await listener.barrier()
        assert listener.waiting() == []


async def test_no_connect_in_time(target: Server) -> None:
    pipe = await RawWebSocket.open(target.port)
    frames, code = await answer(pipe)
    _said(frames, "CONNECT")
    assert code == 1008


async def test_heart_beats_are_no_connect(target: Server) -> None:
    pipe = await RawWebSocket.open(target.port)
    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as tasks:

        async def beat() -> None:
            while True:
                await pipe.send(b"\n")
                await asyncio.sleep(0.05)

        beating = tasks.create_task(beat())
        frames, _ = await answer(pipe)
        beating.cancel()
    _said(frames, "CONNECT")


async def test_half_a_frame_is_no_reason_to_wait_forever(target: Server) -> None:
    pipe = await RawWebSocket.open(target.port)
    await pipe.send(b"CONNECT\naccept-ver")
    frames, _ = await answer(pipe)
    _said(frames, "CONNECT")


async def test_a_client_that_never_reads_is_cut(target: Server) -> None:
    """A topic floods: the slow one is cut, the others get all, memory stays flat."""
    lazy = await RawWebSocket.open(target.port)
    await lazy.send(CONNECT + encode("SUBSCRIBE", {"id": "1", "destination": "/topic/flood"}))
    lazy.reader._transport.pause_reading()  # type: ignore[attr-defined]  # not even the kernel's buffer is emptied
    body = "x" * 50_000
    async with (
        await StompClient.connect(target, "flood-reader") as reader,
        await StompClient.connect(target, "flooder") as flooder,
    ):
        await reader.subscribe("/topic/flood")
        await target.reaches("subscriptions", 2)
        before, cut = target.rss(), target.metrics()["slow_consumers_cut"]
        for _ in range(400):
            await flooder.send("/topic/flood", body, receipt=False)
            assert len((await reader.message()).body) == len(body)
        await target.reaches("slow_consumers_cut", cut + 1)
        assert target.rss() - before < 8 * 1024 * 1024
    await lazy.close()


async def test_a_slow_consumer_of_a_durable_destination_costs_nothing(target: Server) -> None:
    """It is not cut: what does not fit waits in the log."""
    lazy = await RawWebSocket.open(target.port)
    await lazy.send(CONNECT + encode("SUBSCRIBE", {"id": "1", "destination": "/user/queue/inbox"}))
    lazy.reader._transport.pause_reading()  # type: ignore[attr-defined]
    body = "x" * 50_000
    async with await StompClient.connect(target, "patient") as sender:
        before = target.rss()
        for _ in range(200):
            await sender.send("/user/hostile/queue/inbox", body)
        assert target.rss() - before < 24 * 1024 * 1024
        assert target.metrics()["connections"] == 2
    lazy.reader._transport.resume_reading()  # type: ignore[attr-defined]
    got = 0
    async with asyncio.timeout(DEADLINE):
        while got < 200:
            got += sum(found.command == "MESSAGE" for found in decode(await lazy.recv()))
    await lazy.close()


# ── WebSocket ─────────────────────────────────────────────────────────────────────────────────────────────

WEBSOCKET: dict[str, tuple[Callable[[], bytes], set[int | None]]] = {
    "reserved bit": (lambda: frame(TEXT, b"x", rsv=4), {1002}),
    "reserved opcode": (lambda: frame(3, b"x"), {1002, None}),
    "not masked": (lambda: frame(TEXT, b"x", masked=False), {1002, None}),
    "long control frame": (lambda: frame(PING, b"x" * 126), {1002, None}),
    "control frame in fragments": (lambda: frame(PING, b"x", fin=False), {1002, None}),
    "continuation of nothing": (lambda: frame(0, b"x"), {1002}),
    "message in a message": (lambda: frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), {1002}),
    "text not UTF-8": (lambda: frame(TEXT, b"\xff\xfe"), {1007}),
    "endless fragments": (
        lambda: frame(BINARY, b"x" * 60_000, fin=False) + frame(0, b"x" * 60_000, fin=False) * 40,
        {1009},
    ),
    "length of the universe": (lambda: b"\x82\xff\x7f" + b"\xff" * 7 + b"\0\0\0\0xx", {1002, 1009, None}),
    "garbage": (lambda: b"\0\xff\0\xffGET / HTTP/1.1\r\n\r\n" * 10, {1002, 1009, None}),
    "close with a bad code": (lambda: frame(CLOSE, b"\x03\xed"), {1002, 1005, None}),
    "close with one byte": (lambda: frame(CLOSE, b"\x03"), {1002, None}),
}


@pytest.mark.parametrize("name", WEBSOCKET)
async def test_a_broken_websocket(target: Server, name: str) -> None:
    make, codes = WEBSOCKET[name]
    pipe = await RawWebSocket.open(target.port)
    pipe.writer.write(make())
    _, code = await answer(pipe)
    assert code in codes


# ── HTTP ──────────────────────────────────────────────────────────────────────────────────────────────────


async def http(target: Server, data: bytes) -> bytes:
    """All that the server says to `data` before it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    try:
        writer.write(data)
        async with asyncio.timeout(DEADLINE):
            try:
                return await reader.read(-1)
            except ConnectionError:
                return b""
    finally:
        writer.transport.abort()


async def test_a_slow_handshake_is_ended(target: Server) -> None:
    said = await http(target, handshake(target.port)[:60])
    assert said.startswith(b"HTTP/1.1 408") or said == b""


async def test_a_silent_connection_is_ended(target: Server) -> None:
    said = await http(target, b"")
    assert said.startswith(b"HTTP/1.1 408") or said == b""


async def test_a_second_request_on_the_same_connection_has_a_deadline_too(target: Server) -> None:
    first = f"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{target.port}\r\n\r\n".encode()
    said = await http(target, first + b"GET /hea")
    assert b"ok" in said


async def test_a_hundred_slow_handshakes_hold_up_nobody(target: Server) -> None:
    async with asyncio.TaskGroup() as tasks:
        slow = [tasks.create_task(http(target, handshake(target.port)[:60])) for _ in range(100)]
        async with await StompClient.connect(target, "quick") as quick:
            await quick.barrier()
    assert all(task.result()[:12] in (b"", b"HTTP/1.1 408") for task in slow)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1.evil.example", "file://", "x"])
@pytest.mark.parametrize("path", ["/ws", "/chat-websocket/websocket", "/chat-websocket/1/abc/websocket"])
async def test_a_foreign_origin_is_refused(target: Server, origin: str, path: str) -> None:
    said = await http(target, handshake(target.port, path, {"Origin": origin}))
    assert said.startswith(b"HTTP/1.1 403")


async def test_its_own_origin_is_let_in(target: Server) -> None:
    pipe = await RawWebSocket.open(target.port, headers={"Origin": f"http://127.0.0.1:{target.port}"})
    await pipe.close()


async def test_a_cookie_alone_lets_no_client_in(target: Server) -> None:
    """A browser adds it to what any page asks for; only with the Origin is it known which page that was."""
    cookie = f"postroom={CookieAuthenticator(SECRET).issue(UserName('anna'))}"
    async with StompClient(await RawWebSocket.open(target.port, headers={"Cookie": cookie})) as bare:
        await bare.raw(CONNECT)
        assert "Origin" in (await bare.error()).headers["message"]
    headers = {"Cookie": cookie, "Origin": f"http://127.0.0.1:{target.port}"}
    async with StompClient(await RawWebSocket.open(target.port, headers=headers)) as page:
        await page.raw(CONNECT)
        connected = await page.frame(lambda frame: frame.command in ("CONNECTED", "ERROR"))
        assert connected.headers.get("user-name") == "anna"


JUNK: dict[str, tuple[bytes, tuple[bytes, ...]]] = {
    "binary": (bytes(range(256)) * 4 + b"\r\n\r\n", (b"HTTP/1.1 400",)),
    "TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64 + b"\r\n\r\n", (b"HTTP/1.1 400",)),
    "endless head": (b"GET /ws HTTP/1.1\r\nX: " + b"x" * 20_000, (b"HTTP/1.1 431",)),
    "many headers": (b"GET /ws HTTP/1.1\r\n" + b"a: b\r\n" * 2000 + b"\r\n", (b"HTTP/1.1 4",)),
    "wrong version": (handshake(1).replace(b"Version: 13", b"Version: 8"), (b"HTTP/1.1 426",)),
    "no key": (handshake(1).replace(b"Sec-WebSocket-Key", b"Sec-Other"), (b"HTTP/1.1 400",)),
    "bad key": (handshake(1, headers={"Sec-WebSocket-Key": "short"}), (b"HTTP/1.1 400",)),
    "post": (handshake(1).replace(b"GET", b"POST"), (b"HTTP/1.1 405",)),
    "HTTP/1.0": (handshake(1).replace(b"HTTP/1.1", b"HTTP/1.0"), (b"HTTP/1.1 400",)),
    "no host": (handshake(1).replace(b"Host", b"Hast"), (b"HTTP/1.1 400",)),
    "a body": (handshake(1, headers={"Content-Length": "5"}) + b"hello", (b"HTTP/1.1 400",)),
    "unknown path": (handshake(1, "/nothing/here"), (b"HTTP/1.1 404", b"HTTP/1.1 403")),
    "path not UTF-8": (handshake(1, "/ws/%ff%fe"), (b"HTTP/1.1 400", b"HTTP/1.1 404", b"HTTP/1.1 403")),
    "space in the name": (b"GET /ws HTTP/1.1\r\nHost : x\r\n\r\n", (b"HTTP/1.1 400",)),
    "line feeds alone": (b"GET /healthz HTTP/1.1\nHost: x\n\n" + b"\r\n\r\n", (b"HTTP/1.1 ",)),
    "smuggling": (
        b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        (b"HTTP/1.1 400", b"HTTP/1.1 405"),
    ),
}


@pytest.mark.parametrize("name", JUNK)
async def test_junk_instead_of_a_request(target: Server, name: str) -> None:
    data, wanted = JUNK[name]
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    try:
        writer.write(data)
        async with asyncio.timeout(DEADLINE):
            said = await reader.read(12)
    finally:
        writer.transport.abort()
    assert said.startswith(wanted), said
