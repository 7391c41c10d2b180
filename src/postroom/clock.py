"""The time, handed in: `monotonic` for deadlines, `wall` for positions and dates."""

import time
from typing import Protocol


class Clock(Protocol):
    """Where parts of a node take their time from. Tests turn one by hand."""

    def monotonic(self) -> float:
        """Seconds that only grow; comparable within one process."""
        ...

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        ...


class SystemClock:
    """The operating system's clocks."""

    __slots__ = ()

    def monotonic(self) -> float:
        """Seconds that only grow; comparable within one process."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        return time.time()
