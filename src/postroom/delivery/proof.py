"""Proof of receipt without the client's help: one probe at a time, and what its answer proves."""

from typing import Generic, TypeVar

from msgspec import Struct

FollowerT = TypeVar("FollowerT")

FRAMES_AFTER_PROBE = 2
"""Frames of the client after the answer that show that its page has handled what came before (measured)."""


class Probe(Struct, Generic[FollowerT]):
    """What an answer to `token` proves: each follower up to an offset."""

    token: bytes
    marks: list[tuple[FollowerT, int]]


class Prober(Generic[FollowerT]):
    """Which probe of one connection is outstanding, and what waits for further frames.

    A WebSocket client answers a PING with a PONG in stream order, so the PONG proves that it has the messages
    that were written before. At most one probe is outstanding.
    """

    __slots__ = ("_count", "_handled", "outstanding", "since")

    def __init__(self) -> None:
        self._count = 0
        self._handled: list[tuple[int, FollowerT, int]] = []
        self.outstanding: Probe[FollowerT] | None = None
        self.since = 0.0

    def begin(self, marks: list[tuple[FollowerT, int]], now: float) -> bytes:
        """A probe that covers `marks` is about to be written; its token."""
        self._count += 1
        token = self._count.to_bytes(6, "big")
        self.outstanding = Probe(token, marks)
        self.since = now
        return token

    def answered(self, token: bytes) -> list[tuple[FollowerT, int]]:
        """The client answered: what that covers; nothing if it answers something else."""
        probe = self.outstanding
        if probe is None or probe.token != token:
            return []
        self.outstanding = None
        return probe.marks

    def wait_for_frames(self, follower: FollowerT, through: int, seen: int) -> None:
        """`follower` counts as having handled `through` after two frames more than the `seen` so far."""
        self._handled.append((seen + FRAMES_AFTER_PROBE, follower, through))

    def frames(self, seen: int) -> list[tuple[FollowerT, int]]:
        """The client has sent `seen` frames: what counts as handled now."""
        if not self._handled or self._handled[0][0] > seen:
            return []
        due = [(follower, through) for at, follower, through in self._handled if at <= seen]
        self._handled = [entry for entry in self._handled if entry[0] > seen]
        return due

    @property
    def waits_for_frames(self) -> bool:
        """Whether anything waits for further frames."""
        return bool(self._handled)
