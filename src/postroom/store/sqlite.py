"""The embedded default: one SQLite file, one process, one thread that reads and writes it.

What waits is written together (group commit), with `synchronous=FULL`: an answer means that it is on the disk.
Each step of a statement hands Python's lock back and forth, so a batch is few statements with many rows.
"""

import asyncio
import ctypes
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import apsw
import structlog

from postroom.channel import Retention
from postroom.clock import Clock, SystemClock
from postroom.errors import KeyReused, MailboxFull, MessageTooLarge, OutcomeUnknown, Refused, StoreUnavailable
from postroom.findings import Finding
from postroom.position import START, Epoch, Head, LogKey, Position
from postroom.store import file_of
from postroom.store.base import (
    DEVICE_SECONDS,
    IDEMPOTENCY_SECONDS,
    SHARED,
    Append,
    Appended,
    Confirm,
    Cursor,
    Page,
    message_bytes,
)
from postroom.store.sqlite_file import Database
from postroom.store.sqlite_logs import Logs, LogState, confirmed
from postroom.store.together import apart, digest, refusals, runs

_log = structlog.get_logger("postroom.store")

T = TypeVar("T")

_ENVIRONMENT: Final = (
    apsw.BusyError,
    apsw.CantOpenError,
    apsw.ConnectionClosedError,
    apsw.CorruptError,
    apsw.FullError,
    apsw.IOError,
    apsw.NoMemError,
    apsw.NotADBError,
    apsw.ReadOnlyError,
    OSError,
    MemoryError,
)
"""What is the disk's or the machine's fault, not that of what was asked."""
_MAX_ROWS: Final = 4096
_MARK_SECONDS: Final = 60.0
_SWEEP_ROWS: Final = 2000
_SWEEP_STEPS: Final = 25
_KEY_US: Final = int(IDEMPOTENCY_SECONDS * 1e6)
_ANY: Final = 1 << 62
_REUSED: Final = "the idempotency key was used before, for another body"


class _Job:
    """Something for the thread: `work` runs there, its answer goes to `future` on the loop."""

    __slots__ = ("answer", "error", "future", "logs", "reads", "work")

    def __init__(
        self, work: Callable[[], Any], future: "asyncio.Future[Any]", *, logs: Sequence[LogKey], reads: bool
    ) -> None:
        self.work = work
        self.future = future
        self.logs = logs
        self.reads = reads
        self.answer: Any = None
        self.error: Exception | None = None


class SQLiteStore:
    """Logs and cursors in one file. `url`: `sqlite:` (`./postroom-data/postroom.db`), `sqlite:///relative.db`,
    `sqlite:////absolute.db`."""

    durable = True

    def __init__(self, url: str = "sqlite:", *, clock: Clock | None = None) -> None:
        self._clock = clock if clock is not None else SystemClock()
        self._file = Database(file_of(url) or Path("postroom-data/postroom.db"))
        self._logs = Logs(self._file)
        self._waiting: deque[_Job] = deque()
        self._condition = threading.Condition()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leases: dict[tuple[LogKey, str], tuple[str, float]] = {}
        self._swept = 0
        self._devices = (0, "")
        self._failing = False
        self._marked = self._clock.monotonic()

    async def __aenter__(self) -> Self:
        """Lock the file, migrate it, and start the thread. Raises StoreUnavailable."""
        self._loop = asyncio.get_running_loop()
        await self._loop.run_in_executor(None, self._file.open)
        self._thread = threading.Thread(target=self._run, name="postroom-sqlite", daemon=True)
        self._thread.start()
        return self

    async def check(self) -> Sequence[Finding]:
        """See `Checks`."""
        return await asyncio.get_running_loop().run_in_executor(None, self._file.findings)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish what was handed in, then close the file."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        if self._thread is not None and self._loop is not None:
            await self._loop.run_in_executor(None, self._thread.join)

    # ── the loop's side ───────────────────────────────────────────────────────────────────────────────

    async def append(self, batch: Sequence[Append]) -> Sequence[Appended | Refused]:
        """See `LogStore.append`."""
        if not batch:
            return []
        return await self._submit(lambda: self._append(batch), [item.log for item in batch])

    async def read(self, log: LogKey, after: Position, limit: int, max_bytes: int) -> Page:
        """See `LogStore.read`."""
        return await self._submit(lambda: self._read(log, after, limit, max_bytes), [log], reads=True)

    async def heads(self, logs: Sequence[LogKey]) -> Sequence[Head]:
        """See `LogStore.heads`."""
        return await self._submit(lambda: self._heads(logs), logs, reads=True)

    async def trim(self, log: LogKey, through: int) -> None:
        """See `LogStore.trim`."""
        await self._submit(lambda: self._trim(log, through), [log])

    async def sweep(self) -> int:
        """See `LogStore.sweep`."""
        await self._submit(self._forget_some)
        gone = 0
        # Each step is a transaction of its own, so that appends need not wait for the whole.
        for _ in range(_SWEEP_STEPS):
            gone += await self._submit(self._sweep_some)
            if gone or not self._swept:
                break
        if (now := self._clock.monotonic()) - self._marked >= _MARK_SECONDS:
            self._marked = now
            await self._submit(self._file.mark, reads=True)
        return gone

    async def cursor(self, log: LogKey, owner: str) -> Cursor:
        """See `CursorStore.cursor`."""
        return await self._submit(lambda: self._cursor(log, owner), [log])

    async def confirm(self, batch: Sequence[Confirm]) -> None:
        """See `CursorStore.confirm`."""
        if batch:
            await self._submit(lambda: self._confirm(batch), [item.log for item in batch])

    async def attempt(self, log: LogKey, owner: str, through: int) -> None:
        """See `CursorStore.attempt`."""
        await self._submit(lambda: self._attempt(log, owner, through), [log])

    async def lease(self, log: LogKey, owner: str, holder: str, seconds: float) -> bool:
        """See `CursorStore.lease`. In memory: there is one process."""
        now = self._clock.monotonic()
        other, until = self._leases.get((log, owner), (holder, now))
        if other != holder and now < until:
            return False
        self._leases[log, owner] = (holder, now + seconds)
        return True

    async def release(self, log: LogKey, owner: str, holder: str) -> None:
        """See `CursorStore.release`."""
        if self._leases.get((log, owner), ("", 0.0))[0] == holder:
            del self._leases[log, owner]

    async def _submit(self, work: Callable[[], T], logs: Sequence[LogKey] = (), *, reads: bool = False) -> T:
        assert self._loop is not None, "the store is used as a context manager"
        future: asyncio.Future[T] = self._loop.create_future()
        job = _Job(work, future, logs=logs, reads=reads)
        with self._condition:
            if self._stopping:
                raise StoreUnavailable("the store is closed")
            self._waiting.append(job)
            self._condition.notify()
        # Shielded: what was handed in is done, whoever still waits for it.
        return await asyncio.shield(future)

    # ── the thread ────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        _wake_promptly()
        while True:
            with self._condition:
                while not self._waiting and not self._stopping:
                    self._condition.wait()
                if not self._waiting:
                    break
                jobs: list[_Job] = []
                rows = 0
                while self._waiting and (not jobs or rows + len(self._waiting[0].logs) <= _MAX_ROWS):
                    jobs.append(self._waiting.popleft())
                    rows += len(jobs[-1].logs)
            self._serve(jobs)
        self._file.close()

    def _serve(self, jobs: list[_Job]) -> None:
        writes = [job for job in jobs if not job.reads]
        if writes:
            self._write(writes)
        # After the commit: a page must hold nothing that is not on the disk.
        for job in jobs:
            if job.reads:
                self._try(job)
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(_answer, jobs)
        except RuntimeError:
            _log.warning("the loop is gone; answers are lost", answers=len(jobs))

    def _write(self, jobs: list[_Job]) -> None:
        try:
            with self._file.transaction():
                self._logs.prefetch(log for job in jobs for log in job.logs)
                for job in jobs:
                    job.answer = job.work()
                self._logs.finish()
            self._failing = False
        except Exception as error:
            self._failed(jobs, error)

    def _failed(self, jobs: list[_Job], error: Exception) -> None:
        """Nothing of it is stored, or that is not known; the store goes on from what the file says."""
        sure = self._recover()
        if sure and len(jobs) > 1 and not isinstance(error, _ENVIRONMENT):
            # One of them is at fault: alone it fails alone.
            for job in jobs:
                self._write([job])
            return
        kind = StoreUnavailable if sure else OutcomeUnknown
        if not self._failing:
            self._failing = True
            _log.error("the store cannot write", reason=str(error), outcome_known=sure)
        for job in jobs:
            job.error = kind(f"SQLite: {error}")

    def _try(self, job: _Job) -> None:
        try:
            job.answer = job.work()
        except Exception as error:
            job.error = StoreUnavailable(f"SQLite: {error}")
            if isinstance(error, _ENVIRONMENT):
                self._recover()

    def _recover(self) -> bool:
        self._logs.forget()
        return self._file.recover()

    # ── what it does, in the thread ───────────────────────────────────────────────────────────────────

    def _append(self, batch: Sequence[Append]) -> list[Appended | Refused]:
        now = int(self._clock.wall() * 1e6)
        if any(item.key is not None for item in batch):
            self._logs.prefetch_keys(batch)
        if apart(batch):
            return [self._append_one(item, now) for item in batch]
        answers: list[Appended | Refused] = []
        for run in runs(batch):
            refused = self._refusals(run, now) if len(run) > 1 else None
            answers += refused if refused is not None else [self._append_one(item, now) for item in run]
        return answers

    def _refusals(self, run: Sequence[Append], now: int) -> Sequence[Refused] | None:
        logs = self._logs

        def first_use(item: Append) -> bytes | None:
            used = logs.used(logs.state(item.log), item)
            return used.digest if used is not None and used.at >= now - _KEY_US else None

        def has_room(log: LogKey, kept: Retention, count: int, size: int) -> bool:
            return self._make_room(logs.state(log), kept, count, size) is None

        return refusals(run, first_use, has_room)

    def _append_one(self, item: Append, now: int) -> Appended | Refused:
        logs = self._logs
        state = logs.state(item.log)
        kept = item.retention
        if kept is not state.retention:
            logs.keep_retention(state, kept)
        body = b""
        if item.key is not None:
            body = digest(item)
            used = logs.used(state, item)
            if used is not None and used.at >= now - _KEY_US:
                return used.appended if used.digest == body else KeyReused(_REUSED)
        size = message_bytes(item.message)
        if state.count >= kept.max_messages or state.bytes + size > kept.max_bytes:
            if size > kept.max_bytes:
                return MessageTooLarge(f"a message for this mailbox has at most {kept.max_bytes} bytes")
            refused = self._make_room(state, kept, 1, size)
            if refused is not None:
                return refused
        previous, epoch = state.offset, self._file.epoch
        offset = max(previous + 1, now, item.at_least + 1)
        state.offset, state.epoch = offset, epoch
        state.number += 1
        state.count += 1
        state.bytes += size
        logs.add(state, item, previous, size)
        appended = Appended(Position(epoch, offset), previous, state.number)
        if item.key is not None:
            logs.remember(state, item, appended, body, now)
        return appended

    def _make_room(self, state: LogState, kept: Retention, count: int, size: int) -> Refused | None:
        limit = confirmed(state) if kept.on_overflow == "reject" else _ANY
        max_messages, max_bytes = kept.max_messages - count, kept.max_bytes - size
        self._logs.make_room(state, limit, max(0, max_messages), max(0, max_bytes))
        if state.count > max_messages or state.bytes > max_bytes:
            return MailboxFull("the mailbox is full")
        return None

    def _read(self, log: LogKey, after: Position, limit: int, max_bytes: int) -> Page:
        state = self._logs.state(log)
        if not state.count or Position(Epoch(state.epoch), state.offset) <= after:
            return Page([], state.head)
        return Page(self._logs.messages(state, after, limit, max_bytes), state.head)

    def _heads(self, logs: Sequence[LogKey]) -> list[Head]:
        self._logs.prefetch(logs)
        return [self._logs.state(log).head for log in logs]

    def _trim(self, log: LogKey, through: int) -> None:
        self._logs.trim(self._logs.state(log), through)

    def _cursor(self, log: LogKey, owner: str) -> Cursor:
        state = self._logs.state(log)
        cursor = state.cursors.get(owner)
        if cursor is None:
            start = START if owner == SHARED else Position(START.epoch, state.floor)
            cursor = Cursor(start, 0 if owner == SHARED else state.floor_number, 0)
        elif owner == SHARED:
            return cursor  # never forgotten: when it was last asked for does not matter
        self._logs.set_cursor(state, owner, cursor, self._clock.wall())
        return cursor

    def _confirm(self, batch: Sequence[Confirm]) -> None:
        now = self._clock.wall()
        for item in batch:
            state = self._logs.state(item.log)
            cursor = state.cursors.get(item.owner) or Cursor(START, 0, 0)
            head = state.head
            position, number = min((item.position, item.number), (head.last, head.number))
            if position > cursor.confirmed:
                self._logs.set_cursor(state, item.owner, Cursor(position, number, cursor.attempted), now)

    def _attempt(self, log: LogKey, owner: str, through: int) -> None:
        state = self._logs.state(log)
        cursor = state.cursors.get(owner) or Cursor(START, 0, 0)
        if through > cursor.attempted:
            attempted = Cursor(cursor.confirmed, cursor.number, through)
            self._logs.set_cursor(state, owner, attempted, self._clock.wall())

    def _sweep_some(self) -> int:
        self._swept, gone = self._logs.sweep(self._swept, self._clock.wall(), _SWEEP_ROWS)
        return gone

    def _forget_some(self) -> None:
        now = self._clock.wall()
        self._logs.forget_keys(int(now * 1e6) - _KEY_US, _SWEEP_ROWS)
        self._devices = self._logs.forget_devices(self._devices, now - DEVICE_SECONDS, _SWEEP_ROWS)


def _answer(jobs: list[_Job]) -> None:
    for job in jobs:
        if job.future.done():
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.answer)


def _wake_promptly() -> None:
    """Let this thread's timed waits end when they should.

    A thread that wants Python's lock asks for it after `sys.getswitchinterval()`. The kernel may add 50 us to
    that, and an event loop that lets go of the lock for an instant in each turn wins every race until then.
    """
    if sys.platform == "linux":
        pr_set_timerslack = 29
        ctypes.CDLL(None).prctl(pr_set_timerslack, 1000, 0, 0, 0)
