"""Logs in memory: for tests, and for nodes that may forget."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import ClassVar, Self

from postroom.channel import Retention
from postroom.clock import Clock, SystemClock
from postroom.errors import KeyReused, LeaseLost, LeaseTaken, MailboxFull, MessageTooLarge, Refused
from postroom.identity import NodeId, UserName
from postroom.memory_link import name_of
from postroom.message import StoredMessage
from postroom.position import START, Epoch, Head, LogKey, Position
from postroom.store.base import (
    DEVICE_SECONDS,
    IDEMPOTENCY_SECONDS,
    SHARED,
    Append,
    Appended,
    Confirm,
    Cursor,
    Lease,
    Page,
    message_bytes,
)
from postroom.store.together import apart, digest, refusals, runs


class _Log:
    """One log, oldest first, and what its owners have confirmed."""

    def __init__(self) -> None:
        self.entries: list[StoredMessage] = []
        self.bytes = 0
        self.last = START
        self.number = 0
        self.floor = 0
        self.floor_number = 0
        self.retention = Retention()
        self.cursors: dict[str, Cursor] = {}
        self.seen: dict[str, float] = {}

    @property
    def head(self) -> Head:
        return Head(self.last, self.number, self.floor, self.floor_number)

    def after(self, offset: int) -> int:
        return bisect_right(self.entries, offset, key=lambda stored: stored.position.offset)

    def after_position(self, position: Position) -> int:
        return bisect_right(self.entries, position, key=lambda stored: stored.position)

    def confirmed(self) -> int:
        return min((cursor.confirmed.offset for cursor in self.cursors.values()), default=0)

    def drop(self, count: int) -> None:
        for stored in self.entries[:count]:
            self.bytes -= message_bytes(stored.message)
            self.floor, self.floor_number = stored.position.offset, stored.number
        del self.entries[:count]

    def lose(self, count: int) -> list[StoredMessage]:
        kept = max(len(self.entries) - count, 1 if self.floor else 0)
        gone, self.entries = self.entries[kept:], self.entries[:kept]
        if not gone:
            return []
        self.bytes -= sum(message_bytes(stored.message) for stored in gone)
        self.number -= len(gone)
        self.last = self.entries[-1].position if self.entries else START
        for owner, cursor in self.cursors.items():
            confirmed, number = min((cursor.confirmed, cursor.number), (self.last, self.number))
            self.cursors[owner] = Cursor(confirmed, number, min(cursor.attempted, self.last.offset))
        return gone


class _Kept:
    """What one store holds; nodes of one process that name the same URL share it."""

    named: ClassVar[dict[str, "_Kept"]] = {}

    def __init__(self) -> None:
        self.logs: dict[LogKey, _Log] = {}
        self.keys: dict[tuple[LogKey, str, str], tuple[Appended, bytes, float]] = {}
        self.pulls: dict[tuple[LogKey, str], tuple[str, float]] = {}
        self.nodes: dict[NodeId, tuple[Lease, float]] = {}
        self.incarnations = 0
        self.entries: dict[UserName, dict[Lease, None]] = {}
        self.users = 0
        self.epoch = Epoch(1)


class MemoryStore:
    """Keeps everything until the process ends. `url`: see `postroom.memory_link`; without a name
    it is nobody else's."""

    durable = False

    def __init__(self, url: str = "memory:", *, clock: Clock | None = None) -> None:
        self._clock = clock if clock is not None else SystemClock()
        self._name = name_of(url)
        self._kept = _Kept.named.setdefault(self._name, _Kept()) if self._name else _Kept()
        self._logs = self._kept.logs
        self._keys = self._kept.keys
        self._leases = self._kept.pulls

    async def __aenter__(self) -> Self:
        """Nothing to open."""
        self._kept.users += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Forget, if nobody else uses it."""
        self._kept.users -= 1
        if not self._kept.users and self._name:
            _Kept.named.pop(self._name, None)

    async def append(self, batch: Sequence[Append]) -> Sequence[Appended | Refused]:
        """See `LogStore.append`."""
        if apart(batch):
            return [self._append(item) for item in batch]
        answers: list[Appended | Refused] = []
        for run in runs(batch):
            refused = refusals(run, self._first_use, self._has_room) if len(run) > 1 else None
            answers += refused if refused is not None else [self._append(item) for item in run]
        return answers

    def _first_use(self, item: Append) -> bytes | None:
        used = self._used(item)
        return used[1] if used is not None else None

    def _used(self, item: Append) -> tuple[Appended, bytes] | None:
        found = self._keys.get((item.log, item.message.sender or "", item.key or ""))
        if found is None or self._clock.monotonic() - found[2] > IDEMPOTENCY_SECONDS:
            return None
        return found[0], found[1]

    def _has_room(self, log: LogKey, kept: Retention, count: int, size: int) -> bool:
        return self._make_room(self._logs.setdefault(log, _Log()), kept, count, size) is None

    def _append(self, item: Append) -> Appended | Refused:
        log = self._logs.setdefault(item.log, _Log())
        log.retention = item.retention
        if item.key is not None and (used := self._used(item)) is not None:
            first, body = used
            if body != digest(item):
                return KeyReused("the idempotency key was used before, for another body")
            return Appended(first.position, first.previous, first.number, duplicate=True)
        size = message_bytes(item.message)
        if size > item.retention.max_bytes:
            return MessageTooLarge(f"a message for this mailbox has at most {item.retention.max_bytes} bytes")
        if (refused := self._make_room(log, log.retention, 1, size)) is not None:
            return refused
        live = item.live or item.log.user in self._kept.entries
        previous = log.last.offset
        offset = max(previous + 1, int(self._clock.wall() * 1e6), item.at_least + 1)
        log.last, log.number = Position(self._kept.epoch, offset), log.number + 1
        log.entries.append(StoredMessage(item.message, log.last, previous, log.number, live))
        log.bytes += size
        listed = tuple(self._kept.entries.get(item.log.user, ())) if item.log.user is not None else ()
        appended = Appended(log.last, previous, log.number, listed=listed, live=live)
        if item.key is not None:
            key = (item.log, item.message.sender or "", item.key)
            self._keys[key] = (appended, digest(item), self._clock.monotonic())
        return appended

    def _make_room(self, log: _Log, kept: Retention, count: int, size: int) -> Refused | None:
        confirmed = log.confirmed()
        while len(log.entries) + count > kept.max_messages or log.bytes + size > kept.max_bytes:
            if not log.entries or (log.entries[0].position.offset > confirmed and kept.on_overflow == "reject"):
                return MailboxFull("the mailbox is full")
            log.drop(1)
        return None

    def fail_over(self, lost: Mapping[LogKey, int]) -> Sequence[StoredMessage]:
        """For tests: go on as a replica that had not yet got the newest `lost` messages of each log. What is lost."""
        self._kept.epoch = Epoch(self._kept.epoch + 1)
        gone = {(log, stored.position): stored for log, count in lost.items() for stored in self._logs[log].lose(count)}
        for key in [key for key, (first, _, _) in self._keys.items() if (key[0], first.position) in gone]:
            del self._keys[key]
        return list(gone.values())

    async def read(self, log: LogKey, after: Position, limit: int, max_bytes: int) -> Page:
        """See `LogStore.read`."""
        found = self._logs.get(log)
        if found is None:
            return Page([], Head(START, 0, 0, 0))
        start, size, out = found.after_position(after), 0, list[StoredMessage]()
        for stored in found.entries[start : start + limit]:
            size += len(stored.message.body)
            if out and size > max_bytes:
                break
            out.append(stored)
        return Page(out, found.head)

    async def heads(self, logs: Sequence[LogKey]) -> Sequence[Head]:
        """See `LogStore.heads`."""
        return [self._logs[log].head if log in self._logs else Head(START, 0, 0, 0) for log in logs]

    async def trim(self, log: LogKey, through: int) -> None:
        """See `LogStore.trim`."""
        if (found := self._logs.get(log)) is not None:
            found.drop(found.after(through))

    async def sweep(self) -> int:
        """See `LogStore.sweep`."""
        now = self._clock.wall()
        gone = 0
        for log in self._logs.values():
            for owner in [o for o, seen in log.seen.items() if o != SHARED and now - seen > DEVICE_SECONDS]:
                del log.cursors[owner], log.seen[owner]
            old = int((now - log.retention.seconds) * 1e6)
            confirmed = min(log.confirmed(), int((now - log.retention.confirmed_seconds) * 1e6))
            count = log.after(max(old, confirmed))
            log.drop(count)
            gone += count
        expired = [k for k, (_, _, at) in self._keys.items() if self._clock.monotonic() - at > IDEMPOTENCY_SECONDS]
        for key in expired:
            del self._keys[key]
        return gone

    async def cursor(self, log: LogKey, owner: str) -> Cursor:
        """See `CursorStore.cursor`."""
        found = self._logs.setdefault(log, _Log())
        found.seen[owner] = self._clock.wall()
        if owner not in found.cursors:
            start = START if owner == SHARED else Position(START.epoch, found.floor)
            found.cursors[owner] = Cursor(start, 0 if owner == SHARED else found.floor_number, 0)
        cursor, (_, until) = found.cursors[owner], self._leases.get((log, owner), ("", 0.0))
        leased = self._clock.monotonic() < until
        return Cursor(cursor.confirmed, cursor.number, cursor.attempted, leased)

    async def confirm(self, batch: Sequence[Confirm]) -> None:
        """See `CursorStore.confirm`."""
        for item in batch:
            cursor = await self.cursor(item.log, item.owner)
            head = self._logs[item.log]
            position, number = min((item.position, item.number), (head.last, head.number))
            if position > cursor.confirmed:
                head.cursors[item.owner] = Cursor(position, number, cursor.attempted)

    async def attempt(self, log: LogKey, owner: str, through: int) -> None:
        """See `CursorStore.attempt`."""
        cursor = await self.cursor(log, owner)
        if through > cursor.attempted:
            self._logs[log].cursors[owner] = Cursor(cursor.confirmed, cursor.number, through)

    async def lease(self, log: LogKey, owner: str, holder: str, seconds: float) -> bool:
        """See `CursorStore.lease`."""
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

    # ── directory ─────────────────────────────────────────────────────────────────────────────────────

    async def join(self, node: NodeId, seconds: float) -> Lease:
        """See `DirectoryStore.join`."""
        kept = self._kept
        kept.incarnations += 1
        lease = Lease(node, kept.incarnations)
        kept.nodes[node] = (lease, self._clock.monotonic() + seconds)
        return lease

    async def renew(self, lease: Lease, seconds: float) -> Sequence[Lease]:
        """See `DirectoryStore.renew`."""
        now, nodes = self._clock.monotonic(), self._kept.nodes
        held, until = nodes.get(lease.node, (None, 0.0))
        if held != lease:
            if held is not None:
                raise LeaseTaken(f"another node took the name {lease.node}")
            raise LeaseLost("the lease has ended")
        if until <= now:
            del nodes[lease.node]
            raise LeaseLost("the lease has ended")
        nodes[lease.node] = (lease, now + seconds)
        return [each for each, end in nodes.values() if end > now]

    async def retire(self, lease: Lease) -> None:
        """See `DirectoryStore.retire`."""
        if self._kept.nodes.get(lease.node, (None, 0.0))[0] == lease:
            del self._kept.nodes[lease.node]

    async def enter(self, lease: Lease, users: Sequence[UserName]) -> None:
        """See `DirectoryStore.enter`."""
        for user in users:
            self._kept.entries.setdefault(user, {})[lease] = None

    async def leave(self, lease: Lease, users: Sequence[UserName]) -> None:
        """See `DirectoryStore.leave`."""
        for user in users:
            entries = self._kept.entries.get(user, {})
            entries.pop(lease, None)
            if not entries:
                self._kept.entries.pop(user, None)

    async def locate(self, users: Sequence[UserName]) -> Mapping[UserName, Sequence[Lease]]:
        """See `DirectoryStore.locate`."""
        return {user: tuple(self._kept.entries.get(user, ())) for user in users}
