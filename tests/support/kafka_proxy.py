"""A proxy before a Kafka that answers a publish with an error of the server's."""

import struct
from collections.abc import Iterator

from postroom.testing.proxy import Address, Change, Proxy

_PRODUCE = 0


class RefusingProxy(Proxy):
    """A good proxy until `refuse_with` was called: then publishes are stored, and their answers say another thing."""

    def __init__(self, target: Address, *, at: Address, seed: int = 1) -> None:
        super().__init__(target, at=at, seed=seed)
        self._code = self._times = 0

    def refuse_with(self, code: int, *, times: int = 1) -> None:
        """The error's number in the protocol, and for how many publishes."""
        self._code, self._times = code, times

    def changes(self) -> tuple[Change, Change]:
        """See `Proxy.changes`."""
        asked, answered, published = _Frames(), _Frames(), set[int]()

        def requests(data: bytes) -> bytes:
            for frame in asked.feed(data):
                kind, _, number = struct.unpack_from(">hhi", frame, 4)
                if kind == _PRODUCE:
                    published.add(number)
            return data

        def replies(data: bytes) -> bytes:
            return b"".join(self._answer(frame, published) for frame in answered.feed(data))

        return requests, replies

    def _answer(self, frame: bytes, published: set[int]) -> bytes:
        (number,) = struct.unpack_from(">i", frame, 4)
        if number not in published or not self._times:
            return frame
        # size, number, topics [name, partitions [partition, error …] …]: the first of the first
        (length,) = struct.unpack_from(">h", frame, 12)
        changed = bytearray(frame)
        struct.pack_into(">h", changed, 14 + length + 8, self._code)
        self._times -= 1
        return bytes(changed)


class _Frames:
    def __init__(self) -> None:
        self._waiting = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The whole frames, their sizes before them."""
        self._waiting += data
        while len(self._waiting) >= 4:
            end = 4 + int.from_bytes(self._waiting[:4], "big")
            if len(self._waiting) < end:
                return
            frame, self._waiting = self._waiting[:end], self._waiting[end:]
            yield frame
