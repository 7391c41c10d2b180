"""RFC 6455 where another server speaks it: the cases of the native transport, over uvicorn's own WebSockets.

There the server may see the next frame before the application has answered the one before, so that each part waits
for its answer here.
"""

import asyncio
import os
from collections.abc import Iterator

import pytest
from tests.spec.rfc6455.test_websocket import (
    BINARY,
    BYE,
    CASES,
    CLOSE,
    DEADLINE,
    END,
    GOOD,
    HEAD,
    OK,
    TEXT,
    Frame,
    echo,
    frame,
    in_fragments,
    read_frame,
)

THE_SERVERS_OWN_WAY = {
    "5.2 16-bit length that is too small": "websockets takes it",
    "5.2 64-bit length that is too small": "websockets takes it",
    "5.2 64-bit length with its highest bit": "1009 rather than 1002",
    "5.4 a continuation after the end": "the fault is seen before the answer is written",
    "8.1 not text, told before the message ends": "uvicorn looks at whole messages",
}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    yield from echo("--asgi")


async def converse(port: int, *steps: tuple[bytes, list[Frame]]) -> None:
    """Send each step's bytes and wait for its answer; behind the last, the end of the stream."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 26)
    writer.write(HEAD)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    for sent, answer in steps:
        writer.write(sent)
        await writer.drain()
        for wanted in answer:
            opcode, payload = await asyncio.wait_for(read_frame(reader), DEADLINE)
            assert (opcode, payload[:2] if opcode == CLOSE else payload) == wanted
    assert await asyncio.wait_for(reader.read(), DEADLINE) == b""
    writer.close()


@pytest.mark.parametrize("case", [case for case in CASES if case not in THE_SERVERS_OWN_WAY])
async def test_what_is_sent_is_answered(port: int, case: str) -> None:
    sent, answer = CASES[case]
    steps: list[tuple[bytes, list[Frame]]] = []
    if sent.startswith(GOOD) and answer[0] == OK:
        steps.append((GOOD, [OK]))
        sent, answer = sent.removeprefix(GOOD), answer[1:]
    if sent.endswith(BYE) and len(answer) > 1:
        steps += [(sent.removesuffix(BYE), answer[:-1]), (BYE, [END])]
    else:
        steps.append((sent, answer))
    await converse(port, *steps)


@pytest.mark.timeout(120)
async def test_messages_of_16_mib_are_echoed(port: int) -> None:
    large, text = os.urandom(1 << 24), ("é€😀x" * ((1 << 24) // 10)).encode()
    for opcode, payload in ((BINARY, large), (TEXT, text)):
        for size in (4096, 1 << 23):
            await converse(port, (in_fragments(opcode, payload, size), [(opcode, payload)]), (BYE, [END]))


async def test_bytes_may_come_one_by_one(port: int) -> None:
    sent = frame(TEXT, "é€😀".encode())
    steps: list[tuple[bytes, list[Frame]]] = [(sent[at : at + 1], []) for at in range(len(sent))]
    await converse(port, *steps, (b"", [(TEXT, "é€😀".encode())]), (BYE, [END]))


async def test_many_messages_come_back_in_order(port: int) -> None:
    texts = [str(number).encode() for number in range(2000)]
    answers: list[Frame] = [(TEXT, text) for text in texts]
    await converse(port, (b"".join(frame(TEXT, text) for text in texts), answers), (BYE, [END]))
