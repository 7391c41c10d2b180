"""A compact histogram of durations: logarithmic buckets of 1.6 % width, constant memory, one addition a value.

hdrhistogram from PyPI does the same with a C extension and a wire format; forty lines spare a dependency.
"""

from collections.abc import Iterator
from typing import Final

SUB_BITS: Final = 6  # 64 steps an octave: the reported value is at most 1/64 too high
BUCKETS: Final = (64 - SUB_BITS) << SUB_BITS


class Histogram:
    """Counts non-negative whole numbers (microseconds here) up to 2**57."""

    __slots__ = ("_counts", "highest", "total")

    def __init__(self) -> None:
        self._counts = [0] * BUCKETS
        self.total = 0
        self.highest = 0

    def record(self, value: int) -> None:
        """Count `value`; a negative one (clocks of two machines) counts as 0."""
        if value < 0:
            value = 0
        exponent = value.bit_length() - SUB_BITS - 1
        if exponent <= 0:
            self._counts[value] += 1
        else:
            self._counts[(exponent << SUB_BITS) + (value >> exponent)] += 1
        self.total += 1
        if value > self.highest:
            self.highest = value

    def clear(self) -> None:
        """Forget everything counted."""
        self.__init__()  # type: ignore[misc]

    def percentile(self, percent: float) -> int:
        """Give a value that `percent` of the counted ones do not exceed, at most 1.6 % too high; 0 if empty."""
        wanted = max(1, -(-self.total * percent // 100))
        seen = 0
        for upper, count in self.buckets():
            seen += count
            if seen >= wanted:
                return min(upper, self.highest)
        return self.highest

    def buckets(self) -> Iterator[tuple[int, int]]:
        """Give the filled buckets, ascending, as (highest value that falls in, count)."""
        for index, count in enumerate(self._counts):
            if count:
                yield _upper(index), count


def _upper(index: int) -> int:
    octave = index >> SUB_BITS
    if octave <= 1:
        return index
    exponent = octave - 1
    return ((index - (exponent << SUB_BITS) + 1) << exponent) - 1
