"""A store behind a bad network: the store in memory is its server, and each node has an engine of its own for it.

The engine does what an engine must: it asks again until it knows, appends under an id of its own, and says after a
while that the store cannot be reached, or that the outcome is unknown.
"""

import asyncio
import contextvars
import itertools
import random
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar

from tests.simulation.loop import VirtualClock

from postroom.errors import LeaseLost, OutcomeUnknown, Refused, StoreUnavailable
from postroom.identity import NodeId, UserName
from postroom.position import Head, LogKey, Position
from postroom.store.base import Append, Appended, Confirm, Cursor, Lease, Page
from postroom.store.memory import MemoryStore

T = TypeVar("T")

Fate = Literal["well", "slow", "no request", "no reply", "half", "late"]

_TIMEOUT: Final = 0.5
"""So long an engine waits for an answer before it asks again."""

_PATIENCE: Final = 2.5
"""So long it asks before it gives up."""

_PAUSE: Final = 0.1


@dataclass
class Odds:
    """How often a request meets each fate; it is well otherwise.

    `half`: of an append to several logs only some were done. `late`: it is done after the engine gave up waiting.
    """

    slow: float = 0.0
    no_request: float = 0.0
    no_reply: float = 0.0
    half: float = 0.0
    late: float = 0.0

    def draw(self, rng: random.Random) -> Fate:
        draw = rng.random()
        for fate, odds in self._fates():
            if draw < odds:
                return fate
            draw -= odds
        return "well"

    def _fates(self) -> list[tuple[Fate, float]]:
        return [
            ("slow", self.slow),
            ("no request", self.no_request),
            ("no reply", self.no_reply),
            ("half", self.half),
            ("late", self.late),
        ]


@dataclass(frozen=True)
class Entry:
    """Something that was stored, at some time, in some log."""

    position: Position
    previous: int
    number: int
    key: str


@dataclass
class Ledger:
    """All that was ever stored, and what of it the store itself has lost."""

    entries: dict[LogKey, list[Entry]] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    failed_over: bool = False

    def keys(self, log: LogKey) -> set[str]:
        return {entry.key for entry in self.entries.get(log, ())}

    def between(self, log: LogKey, after: Position, before: Position) -> list[Entry]:
        return [entry for entry in self.entries.get(log, ()) if after < entry.position < before]


class _Unanswered(Exception):
    """The request may have been done."""


class _NotSent(Exception):
    """It was certainly not done."""


class Server:
    """The one truth. Each request is done at one instant."""

    def __init__(self, loop: asyncio.AbstractEventLoop, trace: Callable[[str], None]) -> None:
        self.clock = VirtualClock(loop)
        self.store = MemoryStore(clock=self.clock)
        self.ledger = Ledger()
        self.odds = Odds()
        self.trace = trace
        self.on_confirm: Callable[[Sequence[Confirm]], None] = lambda batch: None
        self.context = contextvars.copy_context()
        self._state: Literal["up", "away", "frozen"] = "up"
        self._frozen: deque[Callable[[], None]] = deque()
        self._done: dict[int, tuple[LogKey, Appended]] = {}
        self._entered: deque[tuple[Lease, UserName]] = deque(maxlen=3)

    # ── how it is ─────────────────────────────────────────────────────────────────────────────────────

    def go_away(self) -> None:
        """Refuse connections."""
        self._state = "away"

    def freeze(self) -> None:
        """Take requests, and do them once it thaws, whoever waits for them still."""
        self._state = "frozen"

    def come_back(self) -> None:
        """Serve again."""
        self._state = "up"
        while self._frozen:
            self._frozen.popleft()()

    def fail_over(self, rng: random.Random, *, lost: int, behind: float, forgets: bool) -> None:
        """A replica takes over, whose clock is `behind` and which lacks some of the newest messages of each log.

        It may also lack who came last (`forgets`).
        """
        counts = {log: rng.randint(0, lost) for log in self.ledger.entries}
        gone = {(stored.position, stored.message.headers["key"]) for stored in self.store.fail_over(counts)}
        for log, entries in self.ledger.entries.items():
            self.ledger.entries[log] = [e for e in entries if (e.position, e.key) not in gone]
        keys = sorted(key for _, key in gone)
        self.ledger.lost += keys
        self.ledger.failed_over = True
        positions = {position for position, _ in gone}
        self._done = {id: done for id, done in self._done.items() if done[1].position not in positions}
        self.clock.skew -= behind
        if forgets:
            for lease, user in self._entered:
                at_once(self.store.leave(lease, [user]))
        self.trace(f"the store fails over: {keys} are lost, its clock is {behind} s behind")

    # ── what it is asked ──────────────────────────────────────────────────────────────────────────────

    def take(self, request: Callable[[], None], refuse: Callable[[], None]) -> None:
        """A request arrives."""
        if self._state == "up":
            request()
        elif self._state == "frozen":
            self._frozen.append(request)
        else:
            refuse()

    def append(self, items: Sequence[tuple[int, Append]]) -> Mapping[int, Appended | Refused]:
        """Append what was not appended under the same id before."""
        return {id: self._append(id, item) for id, item in items}

    def _append(self, id: int, item: Append) -> Appended | Refused:
        log, user = item.log, item.log.user
        if id in self._done:
            first = self._done[id][1]
            listed = at_once(self.store.locate([user]))[user] if user is not None else ()
            return Appended(first.position, first.previous, first.number, listed=listed, live=first.live)
        (outcome,) = at_once(self.store.append([item]))
        if isinstance(outcome, Appended):
            key = item.message.headers.get("key")
            if not outcome.duplicate:
                self._done[id] = (log, outcome)
            if key is not None and not outcome.duplicate:  # a node that looks whether the store is back names none
                entry = Entry(outcome.position, outcome.previous, outcome.number, key)
                self.ledger.entries.setdefault(log, []).append(entry)
            nodes = [each.node for each in outcome.listed]
            self.trace(f"stored {key} at {_short(outcome.position)} for {user}, duplicate={outcome.duplicate}, {nodes}")
        return outcome

    def enter(self, lease: Lease, users: Sequence[UserName]) -> None:
        at_once(self.store.enter(lease, users))
        self._entered.extend((lease, user) for user in users)
        self.trace(f"entered {list(users)} at {lease.node}/{lease.incarnation}")

    def leave(self, lease: Lease, users: Sequence[UserName]) -> None:
        at_once(self.store.leave(lease, users))
        self.trace(f"left {list(users)} at {lease.node}/{lease.incarnation}")

    def confirm(self, batch: Sequence[Confirm]) -> None:
        at_once(self.store.confirm(batch))
        for each in batch:
            self.trace(f"confirmed {_short(each.position)} for {each.log.user}/{each.owner}")
        self.on_confirm(batch)

    def alive(self) -> list[Lease]:
        """Whose lease has not ended."""
        now = self.clock.monotonic()
        return [lease for lease, end in self.store._kept.nodes.values() if end > now]

    def floor(self, log: LogKey) -> int:
        """Up to where trimming has removed what was there."""
        return at_once(self.store.heads([log]))[0].floor

    def confirmed(self, log: LogKey, owner: str) -> Position:
        """Where the cursor stands; nobody learns that it was asked."""
        return at_once(self.store.cursor(log, owner)).confirmed


def _short(position: Position) -> str:
    return f"{position.epoch}-{position.offset % 10**9}"


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of what never waits."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    raise AssertionError("it waits")


class FaultyStore:
    """One node's engine. `cut_off` is its own network."""

    durable = True

    def __init__(self, server: Server, rng: random.Random) -> None:
        self._server = server
        self._rng = rng
        self._ids = itertools.count(rng.getrandbits(60) << 4)
        self.severed = False
        self.cut_off = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    # ── the network ───────────────────────────────────────────────────────────────────────────────────

    async def _ask(self, request: Callable[[MemoryStore], Coroutine[Any, Any, T]]) -> T:
        return await self._insist(lambda: at_once(request(self._server.store)))

    async def _insist(self, request: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PATIENCE
        while True:
            try:
                return await self._try(request, request, self._server.odds.draw(self._rng))
            except (_Unanswered, _NotSent):
                await self._pause(deadline)

    async def _pause(self, deadline: float) -> None:
        if asyncio.get_running_loop().time() + _PAUSE >= deadline:
            raise StoreUnavailable("the store does not answer")
        await asyncio.sleep(_PAUSE)

    async def _try(self, request: Callable[[], T], half: Callable[[], object], fate: Fate) -> T:
        if self.severed:
            raise StoreUnavailable("this node is dead")
        loop, server = asyncio.get_running_loop(), self._server
        answer: asyncio.Future[T] = loop.create_future()

        def done() -> None:
            try:
                result = half() if fate == "half" else request()
            except (LeaseLost, StoreUnavailable) as error:
                reply(answer.set_exception, error)
            else:
                reply(answer.set_result, result)

        def reply(tell: Callable[[Any], None], what: Any) -> None:
            if fate in ("well", "slow") and not self.cut_off:
                loop.call_later(self._latency(fate), lambda: None if answer.done() else tell(what))

        def refuse() -> None:
            loop.call_later(self._latency(fate), lambda: None if answer.done() else answer.set_exception(_NotSent()))

        if fate != "no request" and not self.cut_off:
            seconds = self._rng.uniform(1, 4) * _TIMEOUT if fate == "late" else self._latency(fate)
            loop.call_later(seconds, lambda: server.take(done, refuse), context=server.context)
        try:
            async with asyncio.timeout(_TIMEOUT):
                return await answer
        except TimeoutError:
            raise _Unanswered from None

    def _latency(self, fate: Fate) -> float:
        return self._rng.uniform(0.02, 0.2) if fate == "slow" else self._rng.uniform(0.0005, 0.005)

    # ── logs ──────────────────────────────────────────────────────────────────────────────────────────

    async def append(self, batch: Sequence[Append]) -> Sequence[Appended | Refused]:
        server, deadline, unknown = self._server, asyncio.get_running_loop().time() + _PATIENCE, False
        items = [(next(self._ids), item) for item in batch]
        answers: dict[int, Appended | Refused] = {}
        while True:
            left = [(id, item) for id, item in items if id not in answers]
            chosen = self._some_logs(left)
            some = [(id, item) for id, item in left if item.log in chosen]
            fate = server.odds.draw(self._rng)
            try:
                answers |= await self._try(partial(server.append, left), partial(server.append, some), fate)
                return [answers[id] for id, _ in items]
            except _Unanswered:
                unknown = True
            except _NotSent:
                pass
            try:
                await self._pause(deadline)
            except StoreUnavailable as error:
                if unknown:
                    raise OutcomeUnknown("nobody knows what became of it") from error
                raise

    def _some_logs(self, items: Sequence[tuple[int, Append]]) -> Collection[LogKey]:
        return {log for log in dict.fromkeys(item.log for _, item in items) if self._rng.random() < 0.5}

    async def read(self, log: LogKey, after: Position, limit: int, max_bytes: int) -> Page:
        return await self._ask(lambda store: store.read(log, after, limit, max_bytes))

    async def heads(self, logs: Sequence[LogKey]) -> Sequence[Head]:
        return await self._ask(lambda store: store.heads(logs))

    async def trim(self, log: LogKey, through: int) -> None:
        await self._ask(lambda store: store.trim(log, through))

    async def sweep(self) -> int:
        return await self._ask(lambda store: store.sweep())

    # ── cursors ───────────────────────────────────────────────────────────────────────────────────────

    async def cursor(self, log: LogKey, owner: str) -> Cursor:
        return await self._ask(lambda store: store.cursor(log, owner))

    async def confirm(self, batch: Sequence[Confirm]) -> None:
        await self._insist(lambda: self._server.confirm(batch))

    async def attempt(self, log: LogKey, owner: str, through: int) -> None:
        await self._ask(lambda store: store.attempt(log, owner, through))

    async def lease(self, log: LogKey, owner: str, holder: str, seconds: float) -> bool:
        return await self._ask(lambda store: store.lease(log, owner, holder, seconds))

    async def release(self, log: LogKey, owner: str, holder: str) -> None:
        await self._ask(lambda store: store.release(log, owner, holder))

    # ── directory ─────────────────────────────────────────────────────────────────────────────────────

    async def join(self, node: NodeId, seconds: float) -> Lease:
        return await self._ask(lambda store: store.join(node, seconds))

    async def renew(self, lease: Lease, seconds: float) -> Sequence[Lease]:
        return await self._ask(lambda store: store.renew(lease, seconds))

    async def retire(self, lease: Lease) -> None:
        await self._ask(lambda store: store.retire(lease))

    async def enter(self, lease: Lease, users: Sequence[UserName]) -> None:
        await self._insist(lambda: self._server.enter(lease, users))

    async def leave(self, lease: Lease, users: Sequence[UserName]) -> None:
        await self._insist(lambda: self._server.leave(lease, users))

    async def locate(self, users: Sequence[UserName]) -> Mapping[UserName, Sequence[Lease]]:
        return await self._ask(lambda store: store.locate(users))
