"""Confirms of a moment, written together; never back."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from postroom.delivery.window import Proven
from postroom.errors import StoreUnavailable
from postroom.metrics import Metrics
from postroom.position import LogKey
from postroom.store.base import Confirm, CursorStore

Spawn = Callable[[Coroutine[Any, Any, None]], None]
"""Starts a task in the node's task group."""

_RETRY_SECONDS: Final = 0.5


class Confirms:
    """Coalesces the movements of cursors: one write every `seconds` or `batch` cursors, whichever is first.

    A confirm that the store could not take is kept and tried again; losing one costs only a redelivery.
    """

    def __init__(self, cursors: CursorStore, metrics: Metrics, *, seconds: float, batch: int, spawn: Spawn) -> None:
        self._cursors = cursors
        self._metrics = metrics
        self._seconds = seconds
        self._batch = batch
        self._spawn = spawn
        self._pending: dict[tuple[LogKey, str], Proven] = {}
        self._under_way: dict[tuple[LogKey, str], Proven] = {}
        self._done: list[Callable[[], None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._writing = asyncio.Lock()

    def add(self, log: LogKey, owner: str, proven: Proven) -> None:
        """Move the cursor to `proven` in a moment."""
        key = (log, owner)
        known = self._pending.get(key)
        if known is None or proven.position > known.position:
            self._pending[key] = proven
        if len(self._pending) >= self._batch:
            self._start()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._start)

    def after(self, done: Callable[[], None]) -> None:
        """Call `done` once every confirm handed in so far is stored."""
        if self._pending or self._writing.locked():
            self._done.append(done)
            self._start()
        else:
            done()

    def pending(self, log: LogKey, owner: str) -> Proven | None:
        """The confirm of this cursor that is not yet written."""
        return self._pending.get((log, owner)) or self._under_way.get((log, owner))

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._writing.locked():
            self._spawn(self.flush())

    async def flush(self) -> None:
        """Return once every confirm handed in so far is stored."""
        async with self._writing:
            while self._pending or self._done:
                self._under_way, self._pending = self._pending, {}
                done, self._done = self._done, []
                await self._write(self._under_way)
                self._under_way = {}
                for call in done:
                    call()

    async def _write(self, pending: dict[tuple[LogKey, str], Proven]) -> None:
        batch = [Confirm(log, owner, p.position, p.number) for (log, owner), p in pending.items()]
        while batch:
            try:
                await self._cursors.confirm(batch)
            except StoreUnavailable:
                self._metrics.store_failures += 1
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                self._metrics.confirmed += len(batch)
                return
