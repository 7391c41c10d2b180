"""Each store against a model of sixty lines: any order of calls, restarts, jumps of the clock."""

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.support.postgres import Postgres

from postroom.channel import Retention
from postroom.identity import UserName
from postroom.position import START, Epoch, Head, LogKey, Position
from postroom.store.base import (
    DEVICE_SECONDS,
    IDEMPOTENCY_SECONDS,
    SHARED,
    Append,
    Appended,
    Confirm,
    Cursor,
    Store,
    message_bytes,
)
from postroom.store.memory import MemoryStore
from postroom.store.postgres import PostgresStore
from postroom.store.sqlite import SQLiteStore
from postroom.testing.contracts.log_store import HandClock, everything, item

T = TypeVar("T")

LOGS: Final = (
    LogKey(UserName("bob"), "/queue/a"),
    LogKey(UserName("eve"), "/queue/a"),
    LogKey(None, "/topic/a"),
)
OWNERS: Final = (SHARED, "phone", "tablet")
RETENTIONS: Final = (
    Retention(seconds=1000, confirmed_seconds=100, max_messages=4),
    Retention(seconds=1000, confirmed_seconds=0, max_messages=4, on_overflow="drop-oldest"),
    Retention(seconds=5000, confirmed_seconds=100, max_bytes=12),
    Retention(seconds=5000, confirmed_seconds=100, max_bytes=12, on_overflow="drop-oldest"),
)
TICKS: Final = (0.000_001, 1.0, 99.0, 1000.0, IDEMPOTENCY_SECONDS + 1, DEVICE_SECONDS + 1)


class Log:
    """The model of one log. `entries`: offset, number, previous, bytes counted, body."""

    def __init__(self, epoch: Epoch) -> None:
        self.epoch = epoch
        self.entries: list[tuple[int, int, int, int, bytes]] = []
        self.last = self.number = self.floor = self.floor_number = 0
        self.retention = Retention()
        self.cursors: dict[str, Cursor] = {}
        self.seen: dict[str, float] = {}
        self.keys: dict[tuple[str | None, str], tuple[Appended, bytes, float]] = {}

    @property
    def head(self) -> Head:
        last = Position(self.epoch, self.last) if self.number else START
        return Head(last, self.number, self.floor, self.floor_number)

    def confirmed(self) -> int:
        return min((cursor.confirmed.offset for cursor in self.cursors.values()), default=0)

    def drop(self) -> None:
        self.floor, self.floor_number, *_ = self.entries.pop(0)

    def append(self, new: Append, now: float) -> Appended | str:
        self.retention = kept = new.retention
        key = (new.message.sender, new.key) if new.key is not None else None
        if key is not None and key in self.keys and now - self.keys[key][2] <= IDEMPOTENCY_SECONDS:
            first, body, _ = self.keys[key]
            again = Appended(first.position, first.previous, first.number, duplicate=True)
            return again if body == new.message.body else "KeyReused"
        size = message_bytes(new.message)
        if size > kept.max_bytes:
            return "MessageTooLarge"
        while len(self.entries) >= kept.max_messages or sum(e[3] for e in self.entries) + size > kept.max_bytes:
            if kept.on_overflow == "reject" and self.entries[0][0] > self.confirmed():
                return "MailboxFull"
            self.drop()
        previous, self.number = self.last, self.number + 1
        self.last = max(previous + 1, int(now * 1e6), new.at_least + 1)
        self.entries.append((self.last, self.number, previous, size, new.message.body))
        answer = Appended(Position(self.epoch, self.last), previous, self.number)
        if key is not None:
            self.keys[key] = (answer, new.message.body, now)
        return answer

    def make_room(self, kept: Retention, count: int, size: int) -> bool:
        while len(self.entries) + count > kept.max_messages or sum(e[3] for e in self.entries) + size > kept.max_bytes:
            if not self.entries or self.entries[0][0] > self.confirmed():
                return False
            self.drop()
        return True

    def cursor(self, owner: str, now: float) -> Cursor:
        at_floor = owner != SHARED and self.number
        start = Position(START.epoch, self.floor) if at_floor else START
        self.seen[owner] = now
        return self.cursors.setdefault(owner, Cursor(start, self.floor_number if at_floor else 0, 0))

    def confirm(self, owner: str, offset: int, number: int) -> None:
        old = self.cursors[owner]
        offset, number = min((offset, number), (self.last, self.number))
        if number and Position(self.epoch, offset) > old.confirmed:
            self.cursors[owner] = Cursor(Position(self.epoch, offset), number, old.attempted)

    def sweep(self, now: float) -> None:
        self.keys = {key: value for key, value in self.keys.items() if now - value[2] <= IDEMPOTENCY_SECONDS}
        for owner in [o for o, at in self.seen.items() if o != SHARED and now - at > DEVICE_SECONDS]:
            del self.cursors[owner], self.seen[owner]
        old = int((now - self.retention.seconds) * 1e6)
        done = min(self.confirmed(), int((now - self.retention.confirmed_seconds) * 1e6))
        while self.entries and self.entries[0][0] <= max(old, done):
            self.drop()


class StoreMachine(RuleBasedStateMachine):
    """Does the same to a store and to the model."""

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = HandClock()
        self.model = {log: Log(self.epoch()) for log in LOGS}
        self.store = self.run_in_loop(self.make().__aenter__())
        self.begun()

    def make(self) -> Store:
        raise NotImplementedError

    def epoch(self) -> Epoch:
        return Epoch(1)

    def begun(self) -> None:
        """Nothing more to do."""

    def run_in_loop(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.run_in_loop(self.store.__aexit__(None, None, None))
            self.run_in_loop(self.loop.shutdown_default_executor())
            self.loop.close()
            shutil.rmtree(self.folder)

    @rule(
        wanted=st.lists(
            st.tuples(
                st.sampled_from(LOGS),
                st.sampled_from((b"", b"a", b"bbbb", b"c" * 11, b"d" * 13)),
                st.sampled_from(RETENTIONS),
                st.sampled_from((None, None, "k", "l")),
                st.sampled_from(("alice", None)),
                st.sampled_from((0, 0, 1_800_000_000_000_500)),
            ),
            min_size=1,
            max_size=12,
        )
    )
    def append(self, wanted: list[tuple[LogKey, bytes, Retention, str | None, str | None, int]]) -> None:
        batch = [
            item(body, log=log, sender=sender, retention=kept, key=key, at_least=at_least)
            for log, body, kept, key, sender, at_least in wanted
        ]
        outcomes = self.run_in_loop(self.store.append(batch))
        told = [each if isinstance(each, Appended) else type(each).__name__ for each in outcomes]
        assert told == [self.model[each.log].append(each, self.clock.wall()) for each in batch]

    @rule(
        wanted=st.lists(
            st.tuples(st.sampled_from(LOGS), st.sampled_from((b"", b"a", b"bbbb", b"d" * 13))), min_size=2, max_size=6
        ),
        kept=st.sampled_from(RETENTIONS),
    )
    def append_together(self, wanted: list[tuple[LogKey, bytes]], kept: Retention) -> None:
        run = [item(body, log=log, retention=kept, tied=at > 0) for at, (log, body) in enumerate(wanted)]
        told = [
            each if isinstance(each, Appended) else type(each).__name__
            for each in self.run_in_loop(self.store.append(run))
        ]
        fault = self.fault(run, kept)
        if fault is None:
            assert told == [self.model[each.log].append(each, self.clock.wall()) for each in run]
        else:
            at, why = fault
            assert told == [why if place == at else "TransactionRefused" for place in range(len(run))]

    def fault(self, run: list[Append], kept: Retention) -> tuple[int, str] | None:
        sizes = [message_bytes(each.message) for each in run]
        for at, size in enumerate(sizes):
            if size > kept.max_bytes:
                return at, "MessageTooLarge"
        if kept.on_overflow == "reject":
            for log in dict.fromkeys(each.log for each in run):
                places = [at for at, each in enumerate(run) if each.log == log]
                if not self.model[log].make_room(kept, len(places), sum(sizes[at] for at in places)):
                    return places[0], "MailboxFull"
        return None

    @rule(log=st.sampled_from(LOGS), owner=st.sampled_from(OWNERS))
    def cursor(self, log: LogKey, owner: str) -> None:
        found = self.run_in_loop(self.store.cursor(log, owner))
        assert found == self.model[log].cursor(owner, self.clock.wall())

    @rule(log=st.sampled_from(LOGS), owner=st.sampled_from(OWNERS), back=st.integers(-2, 6))
    def confirm(self, log: LogKey, owner: str, back: int) -> None:
        self.cursor(log, owner)
        model = self.model[log]
        entries = [(e[0], e[1]) for e in model.entries] or [(model.last, model.number)]
        offset, number = (model.last + 50, model.number + 50) if back < 0 else entries[-min(back + 1, len(entries))]
        self.run_in_loop(self.store.confirm([Confirm(log, owner, Position(self.epoch(), offset), number)]))
        model.confirm(owner, offset, number)

    @rule(log=st.sampled_from(LOGS), owner=st.sampled_from(OWNERS), through=st.integers(1, 9))
    def attempt(self, log: LogKey, owner: str, through: int) -> None:
        self.cursor(log, owner)
        self.run_in_loop(self.store.attempt(log, owner, through))
        old = self.model[log].cursors[owner]
        self.model[log].cursors[owner] = Cursor(old.confirmed, old.number, max(old.attempted, through))

    @rule(log=st.sampled_from(LOGS), back=st.integers(0, 5))
    def trim(self, log: LogKey, back: int) -> None:
        entries = self.model[log].entries
        through = entries[-min(back + 1, len(entries))][0] if entries else 7
        self.run_in_loop(self.store.trim(log, through))
        while entries and entries[0][0] <= through:
            self.model[log].drop()

    @rule()
    def sweep(self) -> None:
        for _ in range(2):
            self.run_in_loop(self.store.sweep())
        for model in self.model.values():
            model.sweep(self.clock.wall())

    @rule(seconds=st.sampled_from(TICKS))
    def tick(self, seconds: float) -> None:
        self.clock.turn(seconds)

    @precondition(lambda self: self.store.durable)
    @rule()
    def reopen(self) -> None:
        self.run_in_loop(self.store.__aexit__(None, None, None))
        self.store = self.run_in_loop(self.make().__aenter__())

    @rule(log=st.sampled_from(LOGS), skip=st.integers(0, 5), limit=st.integers(1, 5), size=st.integers(1, 20))
    def read(self, log: LogKey, skip: int, limit: int, size: int) -> None:
        after = ([0] + [e[0] for e in self.model[log].entries])[min(skip, len(self.model[log].entries))]
        page = self.run_in_loop(self.store.read(log, Position(self.epoch(), after), limit, size))
        expected: list[tuple[int, bytes]] = []
        for offset, _, _, _, body in [e for e in self.model[log].entries if e[0] > after][:limit]:
            if expected and sum(len(b) for _, b in expected) + len(body) > size:
                break
            expected.append((offset, body))
        assert [(m.position.offset, m.message.body) for m in page.messages] == expected
        assert page.head == self.model[log].head

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "store"):
            return
        heads = self.run_in_loop(self.store.heads(LOGS))
        assert [*heads] == [self.model[log].head for log in LOGS]
        for log in LOGS:
            found = self.run_in_loop(everything(self.store, log))
            told = [(m.position.offset, m.number, m.previous, m.message.body) for m in found]
            assert told == [(e[0], e[1], e[2], e[4]) for e in self.model[log].entries]


class MemoryMachine(StoreMachine):
    def make(self) -> Store:
        return MemoryStore("memory:", clock=self.clock)


class SQLiteMachine(StoreMachine):
    def make(self) -> Store:
        return SQLiteStore(f"sqlite:///{self.folder}/x.db", clock=self.clock)


class PostgresMachine(StoreMachine):
    server: ClassVar[Postgres]

    def make(self) -> Store:
        return PostgresStore(self.server.url(self.folder.name), clock=self.clock)

    def epoch(self) -> Epoch:
        return Epoch(1_800_000_000)  # the clock's first second

    def begun(self) -> None:
        self.run_in_loop(self.store.append([item(log=LogKey(None, "/topic/first"))]))  # a generation begins with it


SETTINGS: Final = settings(max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[*HealthCheck])
TestMemoryModel = pytest.mark.timeout(300)(MemoryMachine.TestCase)
TestMemoryModel.settings = SETTINGS
TestSQLiteModel = pytest.mark.timeout(300)(SQLiteMachine.TestCase)
TestSQLiteModel.settings = SETTINGS


@pytest.fixture
def served(postgres: Postgres) -> None:
    PostgresMachine.server = postgres


TestPostgresModel = pytest.mark.timeout(300)(pytest.mark.usefixtures("served")(PostgresMachine.TestCase))
TestPostgresModel.settings = settings(SETTINGS, max_examples=12)  # each begins with a schema of its own
