"""What a run is asked to do, what it counts while it runs, and the clock that drives it."""

import asyncio
import time
from collections.abc import Callable

import msgspec
from msgspec import field

from postroom.bench.dialect import DIALECTS, Dialect
from postroom.bench.histogram import Histogram
from postroom.errors import PostroomError

STALLED_SECONDS = 10
TELL_SECONDS = 0.95
MAX_NOTES = 5


class BenchFailed(PostroomError):
    """The run cannot start or go on; `str()` is one line for whoever started it."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """The request: the same numbers give the same traffic.

    `receivers_urls`: where receivers connect, in turn; none: where senders do. `rate` is in messages a second over
    all senders; 0: each keeps `outstanding` on their way.
    """

    url: str
    connections: int
    duration: float
    warmup: float
    body_bytes: int
    outstanding: int
    destination: str
    login_prefix: str
    dialect_name: str = "stomp"
    quiet: bool = False
    receivers_urls: tuple[str, ...] = ()
    rate: float = 0.0

    @property
    def dialect(self) -> Dialect:
        """The protocol to speak."""
        return DIALECTS[self.dialect_name]

    def login(self, number: int) -> str:
        """Name the `number`th user."""
        return f"{self.login_prefix}{number}"


class Tally:
    """The counts of a run. One object for all connections: the generator is one thread."""

    __slots__ = ("failed", "latency", "lost", "notes", "received", "refused", "sent")

    def __init__(self) -> None:
        self.sent = 0
        self.received = 0
        self.refused = 0
        self.failed = 0
        self.lost = 0
        self.notes: list[str] = []
        self.latency = Histogram()

    def note(self, text: str) -> None:
        """Keep the first few different texts of what went wrong."""
        if len(self.notes) < MAX_NOTES and text not in self.notes:
            self.notes.append(text)


class Measured(msgspec.Struct, kw_only=True):
    """What the clock saw between the end of the warm-up and the end of the run."""

    seconds: float
    count: int
    generator_cpu: float
    series: list[tuple[float, float]] = field(default_factory=list)
    stalled: bool = False

    @property
    def rate(self) -> float:
        """Counted things a second."""
        return self.count / self.seconds if self.seconds else 0.0


async def measure(load: Load, tally: Tally, counted: Callable[[], int], progress: Callable[[str], None]) -> Measured:
    """Let the started traffic run for warm-up and duration, and read the counter at both ends.

    The series has a sample a second, of a short run ten. Ends early, marked as stalled, if the counter stands still
    for ten seconds.
    """
    await asyncio.sleep(load.warmup)
    tally.latency.clear()
    began, cpu, first = time.perf_counter(), time.process_time(), counted()
    series: list[tuple[float, float]] = []
    last_at, last, moved_at = began, first, began
    now, told_at, step = began, began, min(1.0, load.duration / 10)
    # A timer may fire a little early: what is then left is no sample.
    while load.duration - (now - began) > step / 10 and now - moved_at < STALLED_SECONDS:
        await asyncio.sleep(min(step, load.duration - (now - began)))
        now, count = time.perf_counter(), counted()
        rate = (count - last) / (now - last_at)
        series.append((round(now - began, 3), round(rate, 1)))
        if now - told_at > TELL_SECONDS:
            told_at = now
            progress(f"{now - began:5.0f} s  {rate:12,.0f}/s  refused {tally.refused}  lost {tally.lost}")
        if count != last:
            moved_at = now
        last_at, last = now, count
    return Measured(
        seconds=now - began,
        count=last - first,
        generator_cpu=(time.process_time() - cpu) / (now - began),
        series=series,
        stalled=now - moved_at >= STALLED_SECONDS,
    )
