"""Connects and goes, as often as told: python -m tests.support.connector PORT COUNT CONCURRENCY.

Lean, and in a process of its own, so that a hundred thousand connections take a minute or two. Each one upgrades,
sends CONNECT and SUBSCRIBE, waits for the RECEIPT, and leaves in one of four ways.
"""

import asyncio
import socket
import struct
import sys
from typing import cast

from tests.support.frames import encode
from tests.support.raw import CLOSE, TEXT, frame, handshake

USERS = 500
ADDRESSES = 100  # of our own: one has not enough ports for so many connections
_LINGER_NOT = struct.pack("ii", 1, 0)


class _Visit(asyncio.Protocol):
    def __init__(self, number: int, hello: bytes, gone: asyncio.Future[bool]) -> None:
        self.number = number
        self.hello = hello
        self.gone = gone
        self.seen = b""
        self.subscribed = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = pipe = cast("asyncio.Transport", transport)  # uvloop's are none by inheritance
        user = f"user-{self.number % USERS}"
        connect = encode("CONNECT", {"accept-version": "1.2", "login": user, "heart-beat": "0,0"})
        subscribe = encode("SUBSCRIBE", {"id": "s", "destination": "/user/queue/x", "receipt": "subscribed"})
        pipe.write(self.hello + frame(TEXT, connect) + frame(TEXT, subscribe))

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None
        if self.subscribed:
            self.transport.close()
            return
        self.seen += data
        if b"receipt-id:subscribed" not in self.seen:
            return
        self.subscribed = True
        match self.number % 4:
            case 0:  # a reset
                raw = self.transport.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
                self.transport.abort()
            case 1:  # the line ends, without a word
                self.transport.close()
            case 2:  # WebSocket's goodbye
                self.transport.write(frame(CLOSE, b"\x03\xe8"))
            case _:  # STOMP's goodbye
                self.transport.write(frame(TEXT, encode("DISCONNECT", {"receipt": "bye"})))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.gone.done():
            self.gone.set_result(self.subscribed)


async def visit(port: int, count: int, concurrency: int) -> int:
    """Connect `count` times; how many got as far as the receipt."""
    loop = asyncio.get_running_loop()
    hello = handshake(port)
    numbers = iter(range(count))
    reached = 0

    async def one_after_another() -> None:
        nonlocal reached
        for number in numbers:
            gone: asyncio.Future[bool] = loop.create_future()
            await loop.create_connection(
                lambda number=number, gone=gone: _Visit(number, hello, gone),
                "127.0.0.1",
                port,
                local_addr=(f"127.0.1.{number % ADDRESSES + 1}", 0) if sys.platform == "linux" else None,
            )
            subscribed = await gone
            reached += subscribed

    async with asyncio.TaskGroup() as tasks:
        for _ in range(concurrency):
            tasks.create_task(one_after_another())
    return reached


def main() -> None:
    port, count, concurrency = map(int, sys.argv[1:])
    try:
        import uvloop
    except ImportError:
        print(asyncio.run(visit(port, count, concurrency)))
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(runner.run(visit(port, count, concurrency)))


if __name__ == "__main__":
    main()
