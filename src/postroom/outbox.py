"""The frames of one session until the tick's end; bounded in bytes, joined into one write."""

import asyncio
from collections.abc import Callable

from postroom.transport.base import Transport

_WRITES_A_TICK = 2000


class Flusher:
    """Flushes every dirty outbox of a node at the end of the loop's tick, some thousand writes at a time."""

    __slots__ = ("_call_soon", "_dirty", "_scheduled")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._call_soon = loop.call_soon
        self._dirty: list[Outbox] = []
        self._scheduled = False

    def add(self, outbox: "Outbox") -> None:
        """`outbox` has something to write."""
        self._dirty.append(outbox)
        if not self._scheduled:
            self._scheduled = True
            self._call_soon(self._flush)

    def later(self, call: Callable[[], None]) -> None:
        """Call when the loop turns: whoever is being delivered to now is not to be taken away under the hub."""
        self._call_soon(call)

    def _flush(self) -> None:
        dirty = self._dirty
        if len(dirty) > _WRITES_A_TICK:
            self._dirty = dirty[_WRITES_A_TICK:]
            del dirty[_WRITES_A_TICK:]
            self._call_soon(self._flush)
        else:
            self._dirty = []
            self._scheduled = False
        for outbox in dirty:
            outbox.flush()


class Outbox:
    """What is on its way to one client.

    `max_bytes` bounds what waits here and in the transport together; a client that lets more pile up is cut:
    `overflowed` is called, once, and everything after is dropped. Above a quarter of it, nothing more is
    written until the transport has drained.
    """

    __slots__ = (
        "_below",
        "_bytes",
        "_closed",
        "_dirty",
        "_flusher",
        "_frames",
        "_max_bytes",
        "_overflowed",
        "_transport",
        "flushed",
        "writes",
    )

    def __init__(
        self, transport: Transport, flusher: Flusher, *, max_bytes: int, overflowed: Callable[[], None]
    ) -> None:
        self._transport = transport
        self._flusher = flusher
        self._max_bytes = max_bytes
        self._overflowed = overflowed
        self._frames: list[bytes] = []
        self._bytes = 0
        self._below = 0  # bytes in the transport, as far as the last flush saw
        self._dirty = False
        self._closed = False
        self.writes = 0
        self.flushed: Callable[[], None] | None = None

    def put(self, frame: bytes) -> None:
        """Send `frame`, made by the transport's framing, at the end of this tick. Never blocks."""
        if self._closed:
            return
        self._frames.append(frame)
        self._bytes += len(frame)
        if not self._dirty:
            self._dirty = True
            self._flusher.add(self)
        if self._bytes + self._below > self._max_bytes:
            self._cut()

    @property
    def dirty(self) -> bool:
        """Whether a flush is on its way: what is crowded now may not be so for long."""
        return self._dirty

    @property
    def crowded(self) -> bool:
        """Whether the client is slow: much is waiting, so that what can wait should."""
        return self._bytes + self._below > self._max_bytes >> 1

    def flush(self) -> None:
        """Write what waits, joined, unless the transport is full."""
        self._dirty = False
        frames = self._frames
        if not frames or self._closed:
            return
        transport = self._transport
        if self._below and (below := transport.buffered_bytes) > self._max_bytes >> 2:
            self._below = below
            return
        self._frames = []
        self._bytes = 0
        self.writes += 1
        transport.write(frames[0] if len(frames) == 1 else b"".join(frames))
        self._below = transport.buffered_bytes
        if self._below > self._max_bytes:
            self._cut()
        elif self.flushed is not None:
            self.flushed()

    def drained(self) -> None:
        """The transport's buffer is low again: go on."""
        self._below = 0
        self.flush()

    def close(self) -> None:
        """Write what waits, whatever the transport says, and drop all that comes later."""
        if not self._closed and self._frames:
            self._transport.write(b"".join(self._frames))
        self.drop()

    def drop(self) -> None:
        """Forget everything, now and later: the pipe is gone."""
        self._closed = True
        self._frames = []
        self._bytes = 0

    def _cut(self) -> None:
        self.drop()
        self._flusher.later(self._overflowed)
