"""SockJS's HTTP transports: Postroom against SockJS-node, echo services both, in one run.

    python -m benchmarks.fallbacks [--seconds N] [--rounds N] [--sessions N] [--idle N]

Each session sends a request with messages of 100 bytes, waits until all have come back, and sends the next. The server
runs on one core, this generator on another. Memory is what `--idle` sessions with an open stream add to the server.
"""

import argparse
import asyncio
import os
import statistics
import sys
import time
import uuid
from collections.abc import Callable, Coroutine
from typing import Final, cast

import psutil
from benchmarks.processes import SERVERS, free_port, pin, running

POSTROOM, NODE = "Postroom", "SockJS-node"
MARK: Final = b"~"  # once in each message, nowhere else
BODY: Final = "~" + "x" * 99
BATCHES: Final = (1, 20)
TRANSPORTS: Final = ("xhr_streaming", "xhr")


class Lane(asyncio.Protocol):
    """One kept connection: requests out, bytes in."""

    def __init__(self, came: Callable[[bytes], None]) -> None:
        self._came = came
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._came(data)

    def write(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


class Client:
    """One session. `count` messages travel at a time."""

    def __init__(self, port: int, transport: str, count: int) -> None:
        self._port = port
        self._streams = transport == "xhr_streaming"
        path = f"/echo/000/{uuid.uuid4().hex}"
        self._receive = request(port, f"{path}/{transport}", b"")
        self._send = request(port, f"{path}/xhr_send", ("[" + ",".join([f'"{BODY}"'] * count) + "]").encode())
        self._count = count
        self._missing = 0
        self._opened = asyncio.get_running_loop().create_future()
        self._sender, self._receiver = Lane(self._sent), Lane(self._received)
        self._buffer = b""
        self.messages = 0

    async def open(self) -> None:
        """Return once the session is open, and its receiving request waits."""
        loop = asyncio.get_running_loop()
        for lane in (self._sender, self._receiver):
            await loop.create_connection(lambda lane=lane: lane, "127.0.0.1", self._port)  # type: ignore[misc]
        self._receiver.write(self._receive)
        await self._opened

    def begin(self) -> None:
        """Send the first messages."""
        self._missing = self._count
        self._sender.write(self._send)

    def close(self) -> None:
        for lane in (self._sender, self._receiver):
            if lane.transport is not None:
                lane.transport.abort()

    def _sent(self, data: bytes) -> None:
        assert data.startswith((b"HTTP/1.1 204", b"HTTP/1.1 200")), data

    def _received(self, data: bytes) -> None:
        came = data.count(MARK)
        if not self._opened.done():
            self._buffer += data
            if b"o\n" not in self._buffer:
                return
            self._opened.set_result(None)
        if self._ended(data):
            self._receiver.write(self._receive)
        if came:
            self.messages += came
            self._missing -= came
            if self._missing == 0:
                self.begin()

    def _ended(self, data: bytes) -> bool:
        if data.endswith(b"0\r\n\r\n"):
            return True
        return not self._streams and b"content-length" in data[:400].lower()


def request(port: int, path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def throughput(port: int, transport: str, count: int, sessions: int, seconds: float) -> float:
    """Messages a second."""
    clients = [Client(port, transport, count) for _ in range(sessions)]
    for client in clients:
        await client.open()
    for client in clients:
        client.begin()
    await asyncio.sleep(seconds / 3)
    before, began = sum(client.messages for client in clients), time.perf_counter()
    await asyncio.sleep(seconds)
    rate = (sum(client.messages for client in clients) - before) / (time.perf_counter() - began)
    for client in clients:
        client.close()
    return rate


async def memory(port: int, pid: int, sessions: int) -> float:
    """Bytes of RSS that a session with an open stream adds."""
    process = psutil.Process(pid)
    warm = Client(port, "xhr_streaming", 1)
    await warm.open()
    before = process.memory_info().rss
    clients = [Client(port, "xhr_streaming", 1) for _ in range(sessions)]
    for client in clients:
        await client.open()
    await asyncio.sleep(1)
    grown = process.memory_info().rss - before
    for client in (*clients, warm):
        client.close()
    return grown / sessions


def command(name: str, port: int) -> list[str]:
    if name == POSTROOM:
        return [sys.executable, "-m", "benchmarks.sockjs_echo", str(port)]
    return ["node", str(SERVERS / "sockjs_server.mjs"), str(port)]


Rate = Coroutine[None, None, float]
Measured = Callable[[int, int], Rate]


def measure(name: str, measured: Measured) -> float:
    """What `measured` finds of the server `name`, given its port and its process's id."""
    import uvloop

    port = free_port()
    with running([*pin(0), *command(name, port)], port) as pid, asyncio.Runner(loop_factory=uvloop.new_event_loop) as r:
        return r.run(measured(port, pid))


def row(what: str, ours: float, theirs: float, unit: str = ",.0f") -> str:
    return f"| {what} | {ours:{unit}} | {theirs:{unit}} | {ours / theirs:.2f} |"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--idle", type=int, default=2000)
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {1 % (os.cpu_count() or 1)})
    print("| | Postroom | SockJS-node | ratio |\n| --- | --- | --- | --- |")
    for transport in TRANSPORTS:
        for count in BATCHES:

            def rate(
                port: int, pid: int, transport: str = transport, count: int = count
            ) -> Coroutine[None, None, float]:
                return throughput(port, transport, count, options.sessions, options.seconds)

            rounds = [(measure(POSTROOM, rate), measure(NODE, rate)) for _ in range(options.rounds)]
            ours, theirs = (statistics.median(rates) for rates in zip(*rounds, strict=True))
            print(row(f"messages/s, {transport}, {count} a request", ours, theirs), flush=True)
    ours, theirs = (
        measure(name, lambda port, pid: memory(port, pid, options.idle)) / 1000 for name in (POSTROOM, NODE)
    )
    print(row("RSS of a session with an open stream, kB", ours, theirs, ".1f"))


if __name__ == "__main__":
    main()
