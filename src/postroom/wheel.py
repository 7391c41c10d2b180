"""One timer for all deadlines of a node's sessions."""

import asyncio
from typing import Final, Protocol

import structlog

from postroom.clock import Clock

_log = structlog.get_logger("postroom.wheel")

TICK_SECONDS: Final = 0.25


class Deadline(Protocol):
    """Something that wants to be looked at again."""

    slot: int
    """The wheel's: which slot holds it, 0 for none."""

    def check(self, now: float) -> float | None:
        """Do what is due at `now`; when to be looked at next (monotonic seconds), None: no more."""
        ...


class Wheel:
    """Calls `check` of each entry at about its time, a quarter of a second late at the most.

    Adding, removing and an entry that is not due cost next to nothing: there is no timer a connection.
    """

    __slots__ = ("_clock", "_slots", "_turn", "now")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._slots: dict[int, set[Deadline]] = {}
        self.now = clock.monotonic()
        self._turn = self._slot(self.now)

    def add(self, entry: Deadline, due: float) -> None:
        """Look at `entry` at `due`, and no longer when it was to be looked at before."""
        self.discard(entry)
        entry.slot = max(self._slot(due), self._turn) + 1
        self._slots.setdefault(entry.slot, set()).add(entry)

    def discard(self, entry: Deadline) -> None:
        """Forget `entry`."""
        if entry.slot and (slot := self._slots.get(entry.slot)) is not None:
            slot.discard(entry)
        entry.slot = 0

    async def run(self) -> None:
        """Turn for as long as the node lives."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.turn()

    def turn(self) -> None:
        """Look at everything that is due."""
        self.now = self._clock.monotonic()
        until = self._slot(self.now)
        while self._turn < until:
            self._turn += 1
            for entry in self._slots.pop(self._turn, ()):
                entry.slot = 0
                try:
                    due = entry.check(self.now)
                except Exception:
                    _log.exception("a deadline could not be looked at")
                    continue
                if due is not None:
                    self.add(entry, due)

    def _slot(self, moment: float) -> int:
        return int(moment / TICK_SECONDS)
