"""RFC 7692 on the native transport, over real sockets; each case's name carries the section."""

import asyncio
import os
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import websockets
from tests.support.client import StompClient, WebSocketPipe
from tests.support.server import Server
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

DEADLINE = 10 * float(os.environ.get("POSTROOM_TEST_SCALE", "1"))
ECHO = Path(__file__).parents[3] / "examples" / "ws_echo.py"
TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9
LONG = ("Postroom keeps what it accepted. " * 40).encode()


def head(extensions: str) -> bytes:
    return (
        "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Extensions: {extensions}\r\n\r\n"
    ).encode()


def frame(opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0) -> bytes:
    """A frame as a client sends it, masked with zeros."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xff" + struct.pack(">Q", size)
    if 126 <= size < 65_536:
        length = b"\xfe" + struct.pack(">H", size)
    return bytes([fin << 7 | rsv << 4 | opcode]) + length + b"\0\0\0\0" + payload


def squeeze(payload: bytes, bits: int = 15) -> bytes:
    made = zlib.compressobj(9, zlib.DEFLATED, -bits)
    return (made.compress(payload) + made.flush(zlib.Z_SYNC_FLUSH))[:-4]


def ends(code: int) -> tuple[int, int, bytes]:
    return (CLOSE, 0, struct.pack(">H", code))


BYE = frame(CLOSE, struct.pack(">H", 1000))
SMALL = squeeze(LONG)
HALF = len(SMALL) // 2

CASES: dict[str, tuple[bytes, list[tuple[int, int, bytes]]]] = {
    "6.2.3 a compressed message": (frame(TEXT, SMALL, rsv=4), [(TEXT, 4, LONG)]),
    "6.2.3 a binary one": (frame(BINARY, squeeze(b"\xff" * 900), rsv=4), [(BINARY, 4, b"\xff" * 900)]),
    "6 one that is not compressed": (frame(TEXT, b"plain"), [(TEXT, 4, b"plain")]),
    "6 both kinds in turn": (
        frame(TEXT, SMALL, rsv=4) + frame(TEXT, b"plain") + frame(TEXT, SMALL, rsv=4),
        [(TEXT, 4, LONG), (TEXT, 4, b"plain"), (TEXT, 4, LONG)],
    ),
    "6.1 fragments, the bit on the first alone": (
        frame(TEXT, SMALL[:HALF], fin=False, rsv=4) + frame(PING, b"p") + frame(0, SMALL[HALF:]),
        [(10, 0, b"p"), (TEXT, 4, LONG)],
    ),
    "6.1 the bit on a continuation": (
        frame(TEXT, SMALL[:HALF], fin=False, rsv=4) + frame(0, SMALL[HALF:], rsv=4),
        [ends(1002)],
    ),
    "6.1 the bit on a continuation of what is not compressed": (
        frame(TEXT, b"a", fin=False) + frame(0, b"b", rsv=4),
        [ends(1002)],
    ),
    "6.1 the bit on a control frame": (frame(PING, b"", rsv=4), [ends(1002)]),
    "6 another reserved bit": (frame(TEXT, SMALL, rsv=6), [ends(1002)]),
    "7.2.2 what cannot be inflated": (frame(TEXT, b"\xff\xff\xff\xff", rsv=4), [ends(1007)]),
    "7.2.2 text that is not UTF-8": (frame(TEXT, squeeze(b"\xff\xfe" * 9), rsv=4), [ends(1007)]),
    "7.2.3.6 an empty message": (frame(TEXT, b"\0", rsv=4), [(TEXT, 4, b"")]),
    "7.2.3.6 an empty payload": (frame(TEXT, b"", rsv=4), [(TEXT, 4, b"")]),
    "a bomb": (frame(TEXT, squeeze(bytes(70_000_000)), rsv=4), [ends(1009)]),
}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = int(probe.getsockname()[1])
    server = subprocess.Popen([sys.executable, str(ECHO), "--port", str(number)])
    end = time.monotonic() + 2 * DEADLINE
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", number), timeout=DEADLINE).close()
            break
        except OSError:
            time.sleep(0.02)
    yield number
    server.kill()
    server.wait()


async def upgrade(port: int, extensions: str) -> tuple[str, asyncio.StreamReader, asyncio.StreamWriter]:
    """The answer's head, and the pipe."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head(extensions))
    return (await reader.readuntil(b"\r\n\r\n")).decode(), reader, writer


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, int, bytes]:
    """Opcode, reserved bits, payload (of CLOSE the code); inflated where the first of the bits says so."""
    first, size = await reader.readexactly(2)
    if size == 126:
        (size,) = struct.unpack(">H", await reader.readexactly(2))
    elif size == 127:
        (size,) = struct.unpack(">Q", await reader.readexactly(8))
    payload = await reader.readexactly(size)
    if first & 0x40:
        payload = zlib.decompressobj(-12).decompress(payload + b"\0\0\xff\xff")
    opcode = first & 15
    return opcode, first >> 4 & 7, payload[:2] if opcode == CLOSE else payload


@pytest.mark.parametrize("case", CASES)
async def test_what_is_sent_is_answered(port: int, case: str) -> None:
    sent, wanted = CASES[case]
    async with asyncio.timeout(DEADLINE):
        answer, reader, writer = await upgrade(port, "permessage-deflate; server_max_window_bits=12")
        try:
            assert "server_max_window_bits=12" in answer
            writer.write(sent + BYE)
            came = [await read_frame(reader)]
            while came[-1][0] != CLOSE:
                came.append(await read_frame(reader))
            assert await reader.read() == b""
        finally:
            writer.transport.abort()
    assert came == (wanted if wanted[-1][0] == CLOSE else [*wanted, ends(1000)])


@pytest.mark.parametrize("offer", ["permessage-deflate; server_max_window_bits=8", "permessage-bzip2", "a;b;c"])
async def test_section_5_1_an_offer_that_cannot_be_met_is_declined(port: int, offer: str) -> None:
    async with asyncio.timeout(DEADLINE):
        answer, reader, writer = await upgrade(port, offer)
        try:
            assert answer.startswith("HTTP/1.1 101")
            assert "extensions" not in answer.lower()
            writer.write(frame(TEXT, SMALL, rsv=4))
            assert await read_frame(reader) == ends(1002)
        finally:
            writer.transport.abort()


@pytest.mark.parametrize("bits", [None, 9, 12, 15])
async def test_another_library_understands_us(port: int, bits: int | None) -> None:
    offer = ClientPerMessageDeflateFactory(server_max_window_bits=bits, client_max_window_bits=bits or True)
    async with websockets.connect(
        f"ws://127.0.0.1:{port}/", compression=None, extensions=[offer], max_size=None
    ) as pipe:
        assert [extension.name for extension in pipe.protocol.extensions] == ["permessage-deflate"]
        for message in (LONG.decode(), "short", b"\x00\xff" * 100_000, os.urandom(70_000), "κόσμε" * 9000):
            await pipe.send(message)
            assert await pipe.recv() == message


OFFERS = (
    "permessage-deflate",
    "permessage-deflate; client_no_context_takeover",
    "permessage-deflate; server_no_context_takeover; client_max_window_bits",
    "permessage-deflate; server_max_window_bits=9; client_max_window_bits=15",
    "permessage-deflate; server_max_window_bits=15",
    "permessage-deflate; server_no_context_takeover; server_max_window_bits=9",
    "permessage-deflate; server_no_context_takeover; server_max_window_bits=15",
    "permessage-deflate; server_max_window_bits=9; client_max_window_bits, permessage-deflate; bogus=1, a",
    "x-unknown; a=1, permessage-deflate; server_max_window_bits=8, permessage-deflate",
)


@pytest.mark.parametrize("offer", OFFERS)
async def test_many_messages_of_all_sizes_come_back(port: int, offer: str) -> None:
    """Whole and in fragments, one after the other, with whatever window the answer allows."""
    async with asyncio.timeout(3 * DEADLINE):
        answer, reader, writer = await upgrade(port, offer)
        granted = {part.strip() for part in answer.lower().partition("extensions:")[2].partition("\r")[0].split(";")}
        assert granted >= {"permessage-deflate", "server_no_context_takeover", "client_no_context_takeover"}
        bits = next((int(part[-2:].strip("=")) for part in granted if part.startswith("client_max_window_bits=")), 15)
        try:
            for size in (0, 1, 16, 64, 256, 1024, 4096, 8192, 16_384, 32_768, 65_536, 131_072):
                for body in (LONG * (size // len(LONG)) + LONG[: size % len(LONG)], os.urandom(size)):
                    small, opcode = squeeze(body, bits), TEXT if body[:1].isalpha() and body.isascii() else BINARY
                    half = len(small) // 2
                    writer.write(frame(opcode, small, rsv=4))
                    writer.write(frame(opcode, small[:half], fin=False, rsv=4) + frame(0, small[half:]))
                    for _ in range(2):
                        assert (await read_frame(reader))[::2] == (opcode, body)
        finally:
            writer.transport.abort()


async def test_a_server_compresses_only_if_it_is_told_to(tmp_path: Path) -> None:
    for name, config, names in (
        ("off", "", []),
        ("on", "[compression]\nenabled = true\nmin-bytes = 64\n", ["permessage-deflate"]),
    ):
        folder = tmp_path / name
        folder.mkdir()
        server = Server(folder, config=config)
        await asyncio.to_thread(server.start)
        try:
            async with websockets.connect(server.url) as pipe:
                assert [extension.name for extension in pipe.protocol.extensions] == names
                client = await StompClient(WebSocketPipe(pipe)).introduced("ann")
                await client.subscribe("/user/queue/x")
                for body in (LONG, b"short", b"\x00\xff" * 5000):
                    await client.send("/user/ann/queue/x", body)
                    assert (await client.message()).body == body
                await client.confirmed()
        finally:
            server.close()
