"""Bytes of the hot path: masked client frames that can be joined, and bodies that carry their own proof.

picows masks and writes one frame a call, which is one system call a message; a window's worth of messages is
cheaper as one write, so the frames are built here. The mask is a real one: several servers skip unmasking for
a key of zero, which would flatter them.
"""

import secrets
from typing import Final, NamedTuple

MIN_BODY_BYTES: Final = 36


class Masker:
    """Builds masked text frames under one random key."""

    __slots__ = ("_key", "_patterns")

    def __init__(self, key: bytes = b"") -> None:
        self._key = key or secrets.token_bytes(4)
        self._patterns: dict[int, tuple[bytes, int]] = {}

    def frame(self, payload: bytes) -> bytes:
        """Give `payload` as one final, masked text frame (RFC 6455, section 5)."""
        size = len(payload)
        known = self._patterns.get(size)
        if known is None:
            known = self._patterns[size] = (self._head(size), self._pattern(size))
        head, pattern = known
        return head + (int.from_bytes(payload, "little") ^ pattern).to_bytes(size, "little")

    def _pattern(self, size: int) -> int:
        return int.from_bytes((self._key * (size // 4 + 1))[:size], "little")

    def _head(self, size: int) -> bytes:
        if size < 126:
            return bytes((0x81, 0x80 | size)) + self._key
        if size < 1 << 16:
            return b"\x81\xfe" + size.to_bytes(2, "big") + self._key
        return b"\x81\xff" + size.to_bytes(8, "big") + self._key


class Mark(NamedTuple):
    """What a body says of itself: the run, the pair it belongs to, its number, and when it was sent."""

    run: int
    pair: int
    number: int
    sent_us: int


def body(mark: Mark, size: int) -> bytes:
    """Give a body of exactly `size` bytes (at least `MIN_BODY_BYTES`) that `read_mark` understands."""
    return (b"%06x%06d%010d%014d" % mark).ljust(size, b"x")


def read_mark(text: bytes) -> Mark:
    """Read a body's mark. Raises ValueError for a body that is none of ours."""
    return Mark(int(text[:6], 16), int(text[6:12]), int(text[12:22]), int(text[22:36]))
