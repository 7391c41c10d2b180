"""The node's one appender: batches in order, each as large as what came while the last one was stored."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import structlog

from postroom.errors import PostroomError, Refused, StoreUnavailable
from postroom.metrics import Metrics
from postroom.position import LogKey
from postroom.store.base import Append, Appended, LogStore
from postroom.store.together import runs

_log = structlog.get_logger("postroom.mailbox")

Stored = Callable[[Appended | PostroomError], None]
"""Told, on the loop, what became of an append."""

_MAX_BATCH: Final = 1024
"""Not all that waits: there must be a next batch for the store while the senders of this one are told."""
_TURNS_TO_SEND: Final = 4
"""In how many turns of the loop an engine has begun with what it is given."""


class Appender:
    """Appends to the store, first come, first stored. What could not be stored takes along what waits for its log.

    `appended` is called for each message that was stored, before the sender's own `Stored`.
    """

    def __init__(self, logs: LogStore, metrics: Metrics, appended: Callable[[Append, Appended], None]) -> None:
        self._logs = logs
        self._metrics = metrics
        self._appended = appended
        self._waiting: list[tuple[Append, Stored]] = []
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.available = True

    @property
    def waiting(self) -> int:
        """How many appends wait for the store's last batch to end."""
        return len(self._waiting)

    def append(self, item: Append, stored: Stored) -> None:
        """Append `item` after all that was handed in before it."""
        self._waiting.append((item, stored))
        if len(self._waiting) == 1:
            self._idle.clear()
            self._wake.set()

    async def run(self) -> None:
        """Append what waits, batch after batch, for as long as the node lives."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._wake.wait()
                self._wake.clear()
                await self._append_all(tasks)
                self._idle.set()

    async def _append_all(self, tasks: asyncio.TaskGroup) -> None:
        tell: Callable[[], None] | None = None
        while self._waiting or tell is not None:
            # Until a batch's outcome is known the next one waits: that keeps every log in order.
            under_way = tasks.create_task(self._append(self._take())) if self._waiting else None
            if tell is not None:
                if under_way is not None:
                    # The store works on the next batch while the senders of this one are told.
                    await _turns(_TURNS_TO_SEND)
                tell()
                tell = None
            if under_way is not None:
                tell = await under_way
                if not self.available:
                    tell()  # at once: what came behind it is held up
                    tell = None

    def _take(self) -> Sequence[tuple[Append, Stored]]:
        end = _MAX_BATCH
        while end < len(self._waiting) and self._waiting[end][0].tied:
            end += 1  # never between items that are tied
        batch, self._waiting = self._waiting[:end], self._waiting[end:]
        return batch

    async def flush(self) -> None:
        """Return once every append handed in so far has its outcome."""
        await self._idle.wait()

    async def _append(self, batch: Sequence[tuple[Append, Stored]]) -> Callable[[], None]:
        try:
            outcomes = await self._logs.append([item for item, _ in batch])
        except StoreUnavailable as error:
            self._unavailable(error)
            held = self._hold_up({item.log for item, _ in batch})
            return partial(_refuse, batch, error, held)
        self.recovered()
        return partial(self._tell, batch, outcomes)

    def _tell(self, batch: Sequence[tuple[Append, Stored]], outcomes: Sequence[Appended | Refused]) -> None:
        kept = 0
        for (item, stored), outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Appended):
                if outcome.duplicate:
                    self._metrics.duplicates += 1
                else:
                    kept += 1
                    self._appended(item, outcome)
            stored(outcome)
        self._metrics.appended += kept

    def _hold_up(self, logs: set[LogKey]) -> Sequence[tuple[Append, Stored]]:
        # What came behind something that was refused must not be stored before that is sent again.
        held, kept, start = list[tuple[Append, Stored]](), list[tuple[Append, Stored]](), 0
        for run in runs([item for item, _ in self._waiting]):
            some, start = self._waiting[start : start + len(run)], start + len(run)
            if logs.isdisjoint(item.log for item in run):
                kept += some
            else:
                held += some
                logs.update(item.log for item in run)
        self._waiting = kept
        return held

    def recovered(self) -> None:
        """The store takes what it is given."""
        if not self.available:
            _log.warning("the store is back: durable messages are accepted again")
            self.available = True

    def _unavailable(self, error: StoreUnavailable) -> None:
        self._metrics.store_failures += 1
        if self.available:
            _log.error("the store is unavailable: durable messages are refused", reason=str(error))
        self.available = False


def _refuse(
    batch: Sequence[tuple[Append, Stored]], error: StoreUnavailable, held: Sequence[tuple[Append, Stored]]
) -> None:
    for _, stored in batch:
        stored(error)
    for _, stored in held:
        stored(StoreUnavailable("the store did not take what came before it"))


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)
