"""A TCP proxy that does to connections what networks do: cuts, delays, swallows; and loses pub/sub messages."""

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable

from tests.support.server import free_port

_PIECE = 65_536

Change = Callable[[bytes], bytes]
"""What goes on of what comes."""


class Proxy:
    """Listens on `port`, forwards to `target`. In a thread and loop of its own; every method may be called from any."""

    def __init__(self, target: int, *, seed: int = 1) -> None:
        self.port = free_port()
        self.dropped = 0
        self._target = target
        self._random = random.Random(seed)
        self._delay = 0.0
        self._share = 0.0
        self._refusing = False
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        assert self._ready.wait(5)

    def close(self) -> None:
        """End, and cut everything."""
        if self._thread.is_alive():
            self.heal()
            self.refuse()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5)

    # ── what may happen ───────────────────────────────────────────────────────────────────────────────

    def cut(self) -> None:
        """Reset every connection."""
        self._call(self._cut)

    def refuse(self) -> None:
        """Reset every connection, and each new one."""

        def refuse() -> None:
            self._refusing = True
            self._cut()

        self._call(refuse)

    def blackhole(self) -> None:
        """Connections stay, new ones are taken, and nothing goes through."""
        self._call(self._flowing.clear)

    def delay(self, seconds: float) -> None:
        """Everything takes so much longer, both ways."""
        self._delay = seconds

    def drop_pubsub(self, share: float) -> None:
        """Lose this share of the messages of subscriptions."""
        self._share = share

    def heal(self) -> None:
        """Be a good network again. What was swallowed goes through now; connections that waited are as they were."""

        def heal() -> None:
            self._refusing = False
            self._flowing.set()

        self._delay = self._share = 0.0
        self._call(heal)

    # ── inside ────────────────────────────────────────────────────────────────────────────────────────

    def _call(self, what: Callable[[], object]) -> None:
        done = threading.Event()

        def call() -> None:
            what()
            done.set()

        self._loop.call_soon_threadsafe(call)
        assert done.wait(5)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._take, "127.0.0.1", self.port))
        self._ready.set()
        self._loop.run_forever()
        server.close()
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _end(self) -> None:
        """Let nothing be left for the garbage collector, which would complain in somebody else's test."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # what was aborted is told so in the next turns

    def _cut(self) -> None:
        for writer in tuple(self._writers):
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair = {writer}
        try:
            if self._refusing:
                return
            with contextlib.suppress(OSError):
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
                pair.add(far_writer)
                self._writers |= pair
                requests, replies = self.changes()
                await asyncio.gather(self._pump(reader, far_writer, requests), self._pump(far_reader, writer, replies))
        finally:
            self._writers -= pair
            for each in pair:
                each.transport.abort()

    def changes(self) -> tuple[Change, Change]:
        """What becomes of requests and replies on a new connection."""
        return (lambda data: data), Replies(self._keeps).feed

    def _keeps(self) -> bool:
        if self._random.random() < self._share:
            self.dropped += 1
            return False
        return True

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, change: Change) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_PIECE):
                if self._delay:
                    await asyncio.sleep(self._delay)
                await self._flowing.wait()
                writer.write(change(data))
                await writer.drain()
        writer.transport.abort()


class Replies:
    """What a server says on one connection. On one that has subscribed, messages that `keeps` refuses are left out."""

    def __init__(self, keeps: Callable[[], bool]) -> None:
        self._keeps = keeps
        self._subscribed: bool | None = None
        self._waiting = b""

    def feed(self, data: bytes) -> bytes:
        """What of `data` goes on."""
        if self._subscribed is None and b"subscribe\r\n" in data[:40]:
            self._subscribed = True
        if not self._subscribed:
            return data
        self._waiting += data
        out, start = [], 0
        while (end := _end(self._waiting, start)) is not None:
            reply = self._waiting[start:end]
            if not (reply.startswith((b"*3\r\n$7\r\nmessage", b"*3\r\n$8\r\nsmessage")) and not self._keeps()):
                out.append(reply)
            start = end
        self._waiting = self._waiting[start:]
        return b"".join(out)


def _end(data: bytes, start: int) -> int | None:
    """Where the RESP value at `start` ends; None: not all of it is there."""
    line = data.find(b"\r\n", start)
    if line < 0:
        return None
    kind, end = data[start : start + 1], line + 2
    if kind == b"$":
        size = int(data[start + 1 : line])
        end += size + 2 if size >= 0 else 0
        return end if end <= len(data) else None
    if kind in (b"*", b">"):
        for _ in range(int(data[start + 1 : line])):
            found = _end(data, end)
            if found is None:
                return None
            end = found
    return end
