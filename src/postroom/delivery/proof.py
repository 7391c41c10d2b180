"""Proof of receipt without the client's help: one probe at a time, and what its answer proves."""

from typing import Generic, TypeVar

from msgspec import Struct

FollowerT = TypeVar("FollowerT")

FRAMES_AFTER_PROBE = 2
"""Frames of the client after the answer that show that its page has handled what came before (measured)."""

SIGN_SECONDS = 5.0
"""Over a pipe without probes, a frame proves what was written before another that came so much earlier."""


class Probe(Struct, Generic[FollowerT]):
    """What an answer to `token` proves: each follower up to an offset."""

    token: bytes
    marks: list[tuple[FollowerT, int]]


class Signs(Generic[FollowerT]):
    """Stands in for probes where a pipe has none: frames of the client, some seconds apart.

    What was written before one frame counts as received at the first frame that comes SIGN_SECONDS after that. A
    frame right behind the message proves nothing: it was on its way before. This is less than a PONG: bytes may
    stay in the network for longer than that while frames come the other way.
    """

    __slots__ = ("_marks", "_since")

    def __init__(self) -> None:
        self._marks: list[tuple[FollowerT, int]] = []
        self._since = 0.0

    def frame(self, now: float) -> list[tuple[FollowerT, int]]:
        """The client sent a frame: what counts as received now."""
        if not self._marks or now - self._since < SIGN_SECONDS:
            return []
        marks, self._marks = self._marks, []
        return marks

    @property
    def watching(self) -> bool:
        """Whether something written waits for a later frame."""
        return bool(self._marks)

    def watch(self, marks: list[tuple[FollowerT, int]], now: float) -> None:
        """All of `marks` was with the server's system by `now`, when a frame came."""
        self._marks, self._since = marks, now


class Prober(Generic[FollowerT]):
    """Which probe of one connection is outstanding, and what waits for further frames.

    A WebSocket client answers a PING with a PONG in stream order, so the PONG proves that it has the messages
    that were written before. At most one probe is outstanding.
    """

    __slots__ = ("_count", "_handled", "outstanding", "signs", "since")

    def __init__(self) -> None:
        self._count = 0
        self._handled: list[tuple[int, FollowerT, int]] = []
        self.outstanding: Probe[FollowerT] | None = None
        self.since = 0.0
        self.signs: Signs[FollowerT] | None = None  # of a pipe without probes

    def unavailable(self) -> None:
        """The pipe cannot carry the probe that just began, nor any other."""
        self.outstanding = None
        if self.signs is None:
            self.signs = Signs()

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
    def wants_frames(self) -> bool:
        """Whether further frames of the client may prove anything."""
        return bool(self._handled) or self.signs is not None
