"""RFC 6455 on the native transport, over real sockets: what is sent, and all that must come back.

Each case runs against `examples/ws_echo.py`; its name carries the section. A case's answer is complete: frames in
order, then the end of the stream.
"""

import asyncio
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

DEADLINE = 10 * float(os.environ.get("POSTROOM_TEST_SCALE", "1"))
ECHO = Path(__file__).parents[3] / "examples" / "ws_echo.py"
HEAD = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
Frame = tuple[int, bytes]


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """A frame as a client sends it."""
    size, mask = len(payload), 0x80 if masked else 0
    head = bytes([fin << 7 | rsv << 4 | opcode])
    if size < 126:
        head += bytes([mask | size])
    elif size < 65_536:
        head += bytes([mask | 126]) + struct.pack(">H", size)
    else:
        head += bytes([mask | 127]) + struct.pack(">Q", size)
    if not masked:
        return head + payload
    key = b"\x01\x02\x03\x04"
    return head + key + bytes(byte ^ key[at & 3] for at, byte in enumerate(payload))


def code(number: int, reason: bytes = b"") -> bytes:
    """The payload of a close frame."""
    return struct.pack(">H", number) + reason


BYE = frame(CLOSE, code(1000))
END: Frame = (CLOSE, code(1000))


def fails(number: int, *before: Frame) -> list[Frame]:
    """What came before is answered, then the connection fails with this code."""
    return [*before, (CLOSE, code(number))]


GREEK = "κόσμε€😀".encode()
OK: Frame = (TEXT, b"ok")
GOOD = frame(TEXT, b"ok")
SIZES = (0, 1, 125, 126, 127, 65_535, 65_536)
NOT_UTF8 = (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xce", b"a\x80", b"\xf8\x88\x80\x80\x80")

CASES: dict[str, tuple[bytes, list[Frame]]] = {
    **{f"5.2 text of {n}": (frame(TEXT, b"*" * n) + BYE, [(TEXT, b"*" * n), END]) for n in SIZES},
    **{f"5.2 binary of {n}": (frame(BINARY, b"\xfe" * n) + BYE, [(BINARY, b"\xfe" * n), END]) for n in SIZES},
    **{
        f"5.2 reserved bits {rsv} on opcode {op}": (GOOD + frame(op, code(1000), rsv=rsv), fails(1002, OK))
        for rsv in range(1, 8)
        for op in (TEXT, BINARY, PING, CLOSE)
    },
    **{
        f"5.2 reserved opcode {op}": (GOOD + frame(op, b"x"), fails(1002, OK))
        for op in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    },
    "5.2 16-bit length that is too small": (b"\x81\xfe" + struct.pack(">H", 5) + b"\0\0\0\0hello", fails(1002)),
    "5.2 64-bit length that is too small": (b"\x81\xff" + struct.pack(">Q", 5) + b"\0\0\0\0hello", fails(1002)),
    "5.2 64-bit length with its highest bit": (b"\x81\xff" + struct.pack(">Q", 1 << 63) + b"\0\0\0\0", fails(1002)),
    "5.1 a frame that is not masked": (GOOD + frame(TEXT, b"x", masked=False), fails(1002, OK)),
    "5.4 two fragments": (frame(TEXT, b"a", fin=False) + frame(0, b"b") + BYE, [(TEXT, b"ab"), END]),
    "5.4 a ping between fragments": (
        frame(BINARY, b"a", fin=False) + frame(PING, b"p") + frame(0, b"b", fin=False) + frame(0) + BYE,
        [(PONG, b"p"), (BINARY, b"ab"), END],
    ),
    "5.4 empty fragments": (frame(TEXT, fin=False) + frame(0, fin=False) + frame(0) + BYE, [(TEXT, b""), END]),
    "5.4 a continuation of nothing": (frame(0, b"b"), fails(1002)),
    "5.4 a continuation after the end": (
        frame(TEXT, b"a", fin=False) + frame(0, b"b") + frame(0, b"c"),
        fails(1002, (TEXT, b"ab")),
    ),
    "5.4 a message within a message": (frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), fails(1002)),
    "5.5 a control frame in fragments": (frame(PING, b"x", fin=False), fails(1002)),
    "5.5 a control frame of 126 bytes": (frame(PING, b"x" * 126), fails(1002)),
    "5.5.2 a ping": (frame(PING, b"hi") + BYE, [(PONG, b"hi"), END]),
    "5.5.2 a ping of 125 bytes": (frame(PING, b"\xfe" * 125) + BYE, [(PONG, b"\xfe" * 125), END]),
    "5.5.3 a pong that nobody asked for": (frame(PONG, b"x") + GOOD + BYE, [OK, END]),
    "5.5.1 data after the close": (BYE + GOOD + frame(PING), [END]),
    "5.5.1 two closes": (BYE + frame(CLOSE, code(1001)), [END]),
    "5.5.1 a close without a code": (frame(CLOSE), [(CLOSE, b"")]),
    "5.5.1 a close with half a code": (frame(CLOSE, b"x"), fails(1002)),
    "5.5.1 a reason of 123 bytes": (frame(CLOSE, code(1000, b"x" * 123)), [END]),
    "5.5.1 a reason of 124 bytes": (frame(CLOSE, code(1000, b"x" * 124)), fails(1002)),
    "5.5.1 a reason that is not UTF-8": (frame(CLOSE, code(1000, b"\xff")), fails(1007)),
    **{
        f"7.4 close with {n}": (frame(CLOSE, code(n)), [(CLOSE, code(n))])
        for n in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999)
    },
    **{
        f"7.4 close with {n}, which none may send": (frame(CLOSE, code(n)), fails(1002))
        for n in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535)
    },
    "8.1 text": (frame(TEXT, GREEK) + BYE, [(TEXT, GREEK), END]),
    **{
        f"8.1 text split at byte {at}": (
            frame(TEXT, GREEK[:at], fin=False) + frame(0, GREEK[at:]) + BYE,
            [(TEXT, GREEK), END],
        )
        for at in range(1, len(GREEK))
    },
    **{f"8.1 not text: {bad!r}": (frame(TEXT, bad), fails(1007)) for bad in NOT_UTF8},
    **{
        f"8.1 not text, late: {bad!r}": (frame(TEXT, b"ok", fin=False) + frame(0, bad), fails(1007)) for bad in NOT_UTF8
    },
    "8.1 not text, told before the message ends": (
        frame(TEXT, b"ok", fin=False) + frame(0, b"\xf4\x90", fin=False),
        fails(1007),
    ),
    "8.1 what is no text may be binary": (frame(BINARY, b"\xff\xfe") + BYE, [(BINARY, b"\xff\xfe"), END]),
    "10.4 a message that is too large": (b"\x82\xff" + struct.pack(">Q", 1 << 33) + b"\0\0\0\0", fails(1009)),
}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    yield from echo()


def echo(*options: str) -> Iterator[int]:
    """The port of an echo server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = int(free.getsockname()[1])
    server = subprocess.Popen([sys.executable, str(ECHO), "--port", str(number), *options])
    try:
        until = time.monotonic() + DEADLINE
        while time.monotonic() < until:
            with socket.socket() as trial:
                if trial.connect_ex(("127.0.0.1", number)) == 0:
                    break
            time.sleep(0.02)
        yield number
    finally:
        server.terminate()
        server.wait(DEADLINE)


async def read_frame(reader: asyncio.StreamReader) -> Frame:
    head = await reader.readexactly(2)
    assert not head[1] & 0x80, "a server's frame is not masked (5.1)"
    assert head[0] & 0xF0 == 0x80, "whole, without reserved bits"
    size = head[1] & 0x7F
    if size >= 126:
        size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
    return head[0] & 15, await reader.readexactly(size)


async def converse(port: int, *parts: bytes) -> list[Frame]:
    """Send `parts`, the first in one segment with the handshake; all frames until the server ends the stream."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 26)
    writer.write(HEAD + parts[0])
    status = await reader.readuntil(b"\r\n\r\n")
    assert status.startswith(b"HTTP/1.1 101 ")
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in status  # section 1.3
    for part in parts[1:]:
        writer.write(part)
        await writer.drain()
    got: list[Frame] = []
    try:
        while True:
            got.append(await asyncio.wait_for(read_frame(reader), DEADLINE))
    except asyncio.IncompleteReadError as end:
        assert end.partial == b""
    writer.close()
    return [(op, payload[:2]) if op == CLOSE else (op, payload) for op, payload in got]


@pytest.mark.parametrize("case", CASES)
async def test_what_is_sent_is_answered(port: int, case: str) -> None:
    sent, answer = CASES[case]
    assert await converse(port, sent) == answer


@pytest.mark.parametrize("case", [case for case, (sent, _) in CASES.items() if len(sent) < 1000])
async def test_bytes_may_come_one_by_one(port: int, case: str) -> None:
    sent, answer = CASES[case]
    assert await converse(port, b"", *(sent[at : at + 1] for at in range(len(sent)))) == answer


async def test_large_messages_in_many_pieces_take_linear_time(port: int) -> None:
    large = os.urandom(1 << 22)
    sent = frame(BINARY, large) + BYE
    answer = await converse(port, b"", *(sent[at : at + 997] for at in range(0, len(sent), 997)))
    assert answer == [(BINARY, large), END]


LARGEST = 1 << 24
BYTE_BY_BYTE = LARGEST if os.environ.get("POSTROOM_TEST_LONG") else 1 << 18
"""How large a message comes byte by byte; 16 MiB take a minute."""


def in_fragments(opcode: int, payload: bytes, size: int) -> bytes:
    """One message in fragments of `size` bytes, masked with zeros, which change nothing."""
    head = frame(0, bytes(size), fin=False)[: -size - 4] + bytes(4)
    starts = range(0, len(payload), size)
    middle = b"".join([head + payload[at : at + size] for at in starts[1:-1]])
    return frame(opcode, payload[:size], fin=False) + middle + frame(0, payload[starts[-1] :])


@pytest.mark.timeout(120)
async def test_messages_of_16_mib_are_echoed(port: int) -> None:
    large, text = os.urandom(LARGEST), ("é€😀x" * (LARGEST // 10)).encode()
    key = bytes(4)

    def whole(opcode: int, payload: bytes) -> bytes:
        return bytes([0x80 | opcode, 0xFF]) + struct.pack(">Q", len(payload)) + key + payload

    assert await converse(port, b"", whole(BINARY, large), BYE) == [(BINARY, large), END]
    assert await converse(port, b"", whole(TEXT, text), BYE) == [(TEXT, text), END]
    for size in (64, 4096, 65_536, LARGEST // 2):
        assert await converse(port, b"", in_fragments(BINARY, large, size), BYE) == [(BINARY, large), END]
        assert await converse(port, b"", in_fragments(TEXT, text, size), BYE) == [(TEXT, text), END]


@pytest.mark.timeout(300)
async def test_a_large_message_in_fragments_of_one_byte(port: int) -> None:
    text = ("é€😀x" * (BYTE_BY_BYTE // 10)).encode()
    assert await converse(port, b"", in_fragments(TEXT, text, 1), BYE) == [(TEXT, text), END]


@pytest.mark.timeout(300)
async def test_a_large_message_in_segments_of_one_byte(port: int) -> None:
    sent = frame(BINARY, bytes(BYTE_BY_BYTE))

    def trickle(pipe: socket.socket) -> None:
        for at in range(len(sent)):
            pipe.send(sent[at : at + 1])

    with socket.create_connection(("127.0.0.1", port)) as pipe:
        pipe.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pipe.sendall(HEAD)
        await asyncio.to_thread(trickle, pipe)
        reader, writer = await asyncio.open_connection(sock=pipe.dup())
        await reader.readuntil(b"\r\n\r\n")
        assert await asyncio.wait_for(read_frame(reader), DEADLINE) == (BINARY, bytes(BYTE_BY_BYTE))
        writer.close()


async def test_many_pings_in_one_segment_are_all_answered_in_order(port: int) -> None:
    pings = b"".join(frame(PING, str(number).encode()) for number in range(100))
    assert await converse(port, pings + BYE) == [*((PONG, str(number).encode()) for number in range(100)), END]


async def test_a_large_echo_is_complete_before_the_close(port: int) -> None:
    """The close, and a ping behind it, come while the echo is still being written."""
    large = b"*" * (1 << 18)
    assert await converse(port, frame(TEXT, large) + BYE + frame(PING, b"late")) == [(TEXT, large), END]


async def test_an_unfinished_message_ends_with_the_close(port: int) -> None:
    assert await converse(port, frame(TEXT, b"half", fin=False) + BYE + frame(0, b"more")) == [END]


async def ask(port: int, head: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head)
    status = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE)
    writer.close()
    return status


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ((b"GET /", b"POST /"), b"405"),
        ((b"HTTP/1.1", b"HTTP/1.0"), b"400"),
        ((b"Host: x\r\n", b""), b"400"),
        ((b"Connection: keep-alive, Upgrade", b"Connection: keep-alive"), b"400"),
        ((b"dGhlIHNhbXBsZSBub25jZQ==", b"dG9vIHNob3J0"), b"400"),
        ((b"dGhlIHNhbXBsZSBub25jZQ==", b"!!!"), b"400"),
        ((b"Version: 13", b"Version: 8"), b"426"),
        ((b"GET / ", b"GET /elsewhere "), b"403"),  # as Starlette answers for paths without a WebSocket
    ],
)
async def test_section_4_2_a_handshake_that_is_not_one_is_refused(
    port: int, change: tuple[bytes, bytes], status: bytes
) -> None:
    answer = await ask(port, HEAD.replace(*change))
    assert answer.split()[1] == status
    assert (b"sec-websocket-version: 13" in answer.lower()) == (status == b"426")


async def test_an_upgrade_on_a_connection_that_was_used_before_loses_no_frame(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"404" in await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(len("Not Found"))
    writer.write(HEAD + GOOD)
    assert b"101" in await reader.readuntil(b"\r\n\r\n")
    assert await asyncio.wait_for(read_frame(reader), DEADLINE) == OK
    writer.close()
