"""The protocol's rules, each with what takes it away from the nodes' real code.

A rule whose absence no run notices is either not needed or not tested. Where another rule makes good what the absence
of this one breaks, the runs are of a profile in which that other one is off, or has nothing to do.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final
from unittest.mock import patch

from msgspec import structs

from postroom import stomp
from postroom.cluster.membership import Membership
from postroom.cluster.sequence import Incoming
from postroom.delivery.tail import Deliver, Fetch, Step, Tail
from postroom.delivery.window import Proven, Window
from postroom.gateway import proving
from postroom.gateway.gateway import Gateway
from postroom.identity import Lease
from postroom.interest import Interest
from postroom.mailbox.appender import Appender
from postroom.mailbox.mailbox import Mailbox
from postroom.mesh import Mesh
from postroom.message import StoredMessage
from postroom.peering import Peering
from postroom.position import LogKey
from postroom.router import Router
from postroom.session import Receipts, Ticket
from postroom.store.base import Append, Appended, Confirm, Cursor
from postroom.store.memory import MemoryStore

Apply = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Mutation:
    """A rule of the protocol, and how it is taken away. Some run of `profile` must then show one of `shows`."""

    name: str
    profile: str
    shows: tuple[str, ...]
    applied: Apply


MUTATIONS: Final[dict[str, Mutation]] = {}


def _rule(name: str, *shows: str, profile: str = "storm") -> Callable[[Apply], Apply]:
    def register(applied: Apply) -> Apply:
        MUTATIONS[name] = Mutation(name, profile, shows, applied)
        return applied

    return register


def _nothing(*args: object) -> None:
    pass


def _instead(owner: Any, name: str, make: Callable[[Any], Any]) -> AbstractContextManager[Any]:
    """`make` gets what stands there now, and gives what is to stand there."""
    return patch.object(owner, name, make(getattr(owner, name)))


@contextmanager
def _all(*patches: AbstractContextManager[Any]) -> Iterator[None]:
    with ExitStack() as stack:
        for each in patches:
            stack.enter_context(each)
        yield


# ── what a subscription sends ─────────────────────────────────────────────────────────────────────────────


@_rule("a gap is seen by the predecessor's offset", "gap", "lost", "twice", "order")
def _no_previous() -> AbstractContextManager[Any]:
    def make(announce: Any) -> Any:
        def blind(self: Tail, stored: StoredMessage, *, ready: bool) -> Step:
            step = announce(self, structs.replace(stored, previous=self._offset), ready=ready)
            return Deliver(stored) if isinstance(step, Deliver) else step

        return blind

    return _instead(Tail, "announce", make)


@_rule("what is not newer is dropped", "twice", "position")
def _no_dedupe() -> AbstractContextManager[Any]:
    def make(announce: Any) -> Any:
        def blind(self: Tail, stored: StoredMessage, *, ready: bool) -> Step:
            if stored.position <= self.sent and not self._fetching:
                return Deliver(stored)
            return announce(self, stored, ready=ready)  # type: ignore[no-any-return]

        return blind

    return _instead(Tail, "announce", make)


@_rule("what is told while the log is read is read too", "lost", profile="race")
def _no_more() -> AbstractContextManager[Any]:
    def settle(self: Tail) -> Fetch | None:
        self._fetching, self._more = False, False
        self._heard = self.sent
        return None

    return patch.object(Tail, "settle", settle)


@_rule("what trimming took is told as skipped", "skipped", "lost")
def _no_skipped() -> AbstractContextManager[Any]:
    def make(page: Any) -> Any:
        return lambda self, messages, head: [(stored, 0) for stored, _ in page(self, messages, head)]

    return _instead(Tail, "page", make)


@_rule("a window bounds what is in flight", "too many in flight")
def _no_window() -> AbstractContextManager[Any]:
    return patch.object(Window, "room", property(lambda self: 1000))


# ── confirms ──────────────────────────────────────────────────────────────────────────────────────────────


@_rule("only proof of receipt moves a cursor", "lost")
def _cursor_on_write() -> AbstractContextManager[Any]:
    def make(flushed: Any) -> Any:
        def eager(self: Gateway) -> None:
            flushed(self)
            session = self._session
            for entry in session.entries.values() if session is not None else ():
                if entry.follower is not None:
                    proving.prove(self._desk, [(entry.follower, entry.follower.window.last)])

        return eager

    return _instead(Gateway, "_flushed", make)


@_rule("the cursor is the end of the contiguous run", "lost", profile="absent")
def _highest_ack() -> AbstractContextManager[Any]:
    return patch.object(Window, "prove_one", lambda self, offset: self.prove(offset))


@_rule("a cursor never moves back", "confirmed, and yet again")
def _moves_back() -> AbstractContextManager[Any]:
    async def confirm(self: MemoryStore, batch: Sequence[Confirm]) -> None:
        for item in batch:
            cursor = await self.cursor(item.log, item.owner)
            self._logs[item.log].cursors[item.owner] = Cursor(item.position, item.number, cursor.attempted)

    return patch.object(MemoryStore, "confirm", confirm)


@_rule("what came behind an UNSUBSCRIBE proves nothing", "lost", profile="leaves")
def _proof_of_the_thrown_away() -> AbstractContextManager[Any]:
    def prove(desk: Any, marks: Any) -> None:
        for follower, through in marks:
            proven: Proven | None = follower.window.prove(through)
            if proven is not None:
                desk.mailbox.confirm(follower, proven)

    return patch.object(proving, "prove", prove)


# ── appends ───────────────────────────────────────────────────────────────────────────────────────────────


@_rule("batches are appended one after the other", "order")
def _in_parallel() -> AbstractContextManager[Any]:
    async def run(self: Appender) -> None:
        async def append(batch: Any) -> None:
            tell = await self._append(batch)
            tell()

        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._wake.wait()
                self._wake.clear()
                batch, self._waiting = self._waiting, []
                tasks.create_task(append(batch))
                self._idle.set()

    return patch.object(Appender, "run", run)


@_rule("what cannot be stored holds up what is behind it", "order", profile="outages")
def _no_hold_up() -> AbstractContextManager[Any]:
    return patch.object(Appender, "_hold_up", lambda self, logs: ())


@_rule("a RECEIPT leaves once it is stored", "lost")
def _early_receipt() -> AbstractContextManager[Any]:
    def make(send: Any) -> Any:
        def early(self: Gateway, event: stomp.Send, *more: Any) -> None:
            receipt = event.receipt
            send(self, event, *more)
            if receipt is not None and receipt in [ticket.receipt for ticket in self._present().receipts._line]:
                self._send_receipt(receipt, None)

        return early

    send = Gateway._ON[stomp.Send]
    return patch.dict(Gateway._ON, {stomp.Send: make(send)})


@_rule("the same key is the same message", "stored twice", "twice")
def _no_key() -> AbstractContextManager[Any]:
    def make(route: Any) -> Any:
        return lambda self, *args, key=None, **more: route(self, *args, key=None, **more)

    return _instead(Router, "route", make)


@_rule("the look-up comes behind the append", "lost", profile="race")
def _early_look_up() -> AbstractContextManager[Any]:
    class Before:
        """Uses a look-up that is a little older than the append, as one from a cache is."""

        def __init__(self, logs: Any) -> None:
            self._logs = logs

        async def append(self, batch: Sequence[Append]) -> Sequence[Any]:
            users = list(dict.fromkeys(item.log.user for item in batch if item.log.user is not None))
            listed = await self._logs.locate(users)
            await asyncio.sleep(0.1)
            outcomes = await self._logs.append(batch)
            return [
                structs.replace(outcome, listed=listed[item.log.user], live=bool(listed[item.log.user]))
                if isinstance(outcome, Appended) and item.log.user is not None
                else outcome
                for item, outcome in zip(batch, outcomes, strict=True)
            ]

    def make(init: Any) -> Any:
        return lambda self, logs, *more: init(self, Before(logs), *more)

    return _instead(Appender, "__init__", make)


# ── who is where ──────────────────────────────────────────────────────────────────────────────────────────


@_rule("others find a user before its log is read", "lost", profile="race")
def _read_before_visible() -> AbstractContextManager[Any]:
    def make(user: Any) -> Any:
        def later(self: Interest, name: Any) -> None:
            asyncio.get_running_loop().call_later(0.03, user, self, name)

        return later

    return _instead(Interest, "user", make)


@_rule("a subscription follows its log before it reads it", "lost", profile="race")
def _read_before_follow() -> AbstractContextManager[Any]:
    def make(start: Any) -> Any:
        async def late(self: Mailbox, follower: Any, ready: Any, visible: Any) -> None:
            followers = self._followers[follower.log]
            followers.remove(follower)
            if not followers:
                del self._followers[follower.log]
            await start(self, follower, ready, visible)
            if not follower.closed:
                self._followers.setdefault(follower.log, []).append(follower)

        return late

    return _instead(Mailbox, "_start", make)


@_rule("who has joined since the last renewal is alive", "lost", profile="joins")
def _only_the_known() -> AbstractContextManager[Any]:
    return patch.object(Membership, "alive", lambda self, member: member in self._alive)


@_rule("a new incarnation enters its users again", "lost", profile="lapses")
def _no_re_entry() -> AbstractContextManager[Any]:
    return patch.object(Interest, "rejoined", _nothing)


@_rule("after a re-connection users are entered again", "lost", profile="forgets")
def _no_listing_anew() -> AbstractContextManager[Any]:
    return patch.object(Interest, "reenter", _nothing)


@_rule("who was held for dead sends its clients away", "not fenced", profile="lapses")
def _no_fence() -> AbstractContextManager[Any]:
    return patch.object(Membership, "was_cut_off", lambda self, alive: False)


# ── comparing logs ────────────────────────────────────────────────────────────────────────────────────────


@_rule("logs are compared", "lost", profile="losses")
def _no_comparison() -> AbstractContextManager[Any]:
    return patch.object(Mesh, "_missed", _nothing)


@_rule("a hole in the counters is noticed", "lost", profile="bursts")
def _no_holes() -> AbstractContextManager[Any]:
    def make(heard: Any) -> Any:
        def deaf(self: Any, *args: Any) -> bool:
            heard(self, *args)
            return False

        return deaf

    return _instead(Incoming, "heard", make)


@_rule("heart-beats name the counters", "lost", profile="tells")
def _no_counters() -> AbstractContextManager[Any]:
    return patch.object(Peering, "_beat", _nothing)


@_rule("the end of a peer's lease is noticed", "lost", profile="crashes")
def _no_end() -> AbstractContextManager[Any]:
    def ended(self: Mesh, peer: Lease) -> None:
        self._peering.left(peer)

    return patch.object(Mesh, "_ended", ended)


@_rule("a re-connection of the backplane is a hole", "lost", profile="cuts")
def _no_interruption() -> AbstractContextManager[Any]:
    return patch.object(Peering, "_interrupted", _nothing)


@_rule("a deaf node connects anew", "lost", profile="deaf")
def _no_canary() -> AbstractContextManager[Any]:
    async def silent(self: Peering) -> None:
        pass

    return patch.object(Peering, "_listen_to_canary", silent)


# ── fail-overs ────────────────────────────────────────────────────────────────────────────────────────────


def _epoch_stays() -> AbstractContextManager[Any]:
    def make(fail_over: Any) -> Any:
        def same(self: MemoryStore, lost: Any) -> Any:
            epoch = self._kept.epoch
            gone = fail_over(self, lost)
            self._kept.epoch = epoch
            return gone

        return same

    return _instead(MemoryStore, "fail_over", make)


@_rule(
    "a fail-over begins a new epoch",
    "lost",
    "a position used twice",
    "position",
    "confirmed, and yet again",
    profile="fail-overs",
)
def _no_epoch() -> AbstractContextManager[Any]:
    return _epoch_stays()


@_rule(
    "without epochs, offsets go above all that was seen",
    "lost",
    "a position used twice",
    "position",
    "confirmed, and yet again",
    profile="fail-overs",
)
def _no_at_least() -> AbstractContextManager[Any]:
    def make(append: Any) -> Any:
        return lambda self, item: append(self, structs.replace(item, at_least=0))

    return _all(_instead(MemoryStore, "_append", make), _epoch_stays())


# ── marks, pulls, order of receipts ───────────────────────────────────────────────────────────────────────


@_rule("what others may have been sent is marked", "not marked", profile="absent")
def _no_live() -> AbstractContextManager[Any]:
    def make(append: Any) -> Any:
        def dead(self: MemoryStore, item: Append) -> Any:
            outcome = append(self, item)
            if not isinstance(outcome, Appended) or outcome.duplicate:
                return outcome
            log = self._logs[item.log]
            log.entries[-1] = structs.replace(log.entries[-1], live=False)
            return structs.replace(outcome, live=False)

        return dead

    return _instead(MemoryStore, "_append", make)


@_rule("what is about to be sent from the log is noted before", "not marked", profile="absent")
def _no_attempt() -> AbstractContextManager[Any]:
    async def attempt(self: MemoryStore, log: LogKey, owner: str, through: int) -> None:
        pass

    return patch.object(MemoryStore, "attempt", attempt)


@_rule("a subscription waits for the lease of a pull", "handed out twice", profile="pulls")
def _no_pull_lease() -> AbstractContextManager[Any]:
    def make(cursor: Any) -> Any:
        async def free(self: MemoryStore, log: LogKey, owner: str) -> Cursor:
            found: Cursor = await cursor(self, log, owner)
            return structs.replace(found, leased=False)

        return free

    return _instead(MemoryStore, "cursor", make)


@_rule("a pull gives way to a subscription on another node", "handed out twice", profile="pulls")
def _pull_beside_others() -> AbstractContextManager[Any]:
    async def nobody(self: Mesh, log: LogKey, owner: str) -> bool:
        return False

    return patch.object(Mesh, "followed_elsewhere", nobody)


@_rule("a pull gives way to a subscription on its node", "handed out twice", profile="pulls")
def _pull_beside_own() -> AbstractContextManager[Any]:
    return patch.object(Mailbox, "delivers", lambda self, log, owner: False)


@_rule("receipts leave in the order of their frames", "receipts", profile="leaves")
def _receipts_as_they_come() -> AbstractContextManager[Any]:
    def settle(self: Ticket) -> None:
        self.settled = True
        line: Receipts = self.line
        line._line.remove(self)
        if self.receipt is not None:
            line._send(self.receipt, self.headers)
        if self.then is not None:
            self.then()

    return patch.object(Ticket, "settle", settle)
