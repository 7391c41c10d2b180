"""Followers and their tails; pulls.

A follower is first visible, then reads, then goes live; what an announcement does not say, the log does.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Hashable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from msgspec import Struct

from postroom.channel import Retention
from postroom.clock import Clock
from postroom.delivery.tail import Deliver, Fetch
from postroom.delivery.window import Proven
from postroom.destination import Topic
from postroom.errors import StoreUnavailable
from postroom.mailbox.appender import Appender, Stored
from postroom.mailbox.confirms import Confirms, Spawn
from postroom.message import Message, StoredMessage
from postroom.metrics import Metrics
from postroom.position import Epoch, Head, LogKey, Position
from postroom.store.base import SHARED, Append, Appended, Confirm, Cursor, Page, Store
from postroom.subscription import Follower

T = TypeVar("T")

_PULL_SECONDS: Final = 10.0
_RETRY_SECONDS: Final = 0.5
_LEASED_SECONDS: Final = 0.1
_VISIBLE_SECONDS: Final = 3.0
_EVERYTHING: Final = 1 << 62
_PROBE: Final = LogKey(None, "postroom-probe")
"""No destination's log: a topic begins with a slash."""
_PROBE_KEPT: Final = Retention(seconds=600, confirmed_seconds=600, max_messages=1, on_overflow="drop-oldest")


class Flow(Struct, frozen=True):
    """How much of a log is read at once, and how confirms are coalesced."""

    page_messages: int = 200
    page_bytes: int = 1024 * 1024
    pull_messages: int = 1000
    confirm_seconds: float = 0.05
    confirm_batch: int = 256
    reconcile_logs: int = 500


class Mailbox:
    """This node's side of all logs: what is appended here, and who follows what.

    `followed_elsewhere` says whether another node delivers a log to an owner; None: there are no other nodes.
    """

    def __init__(
        self,
        store: Store,
        *,
        flow: Flow,
        metrics: Metrics,
        clock: Clock,
        spawn: Spawn,
        followed_elsewhere: Callable[[LogKey, str], Awaitable[bool]] | None = None,
    ) -> None:
        self._store = store
        self._followed_elsewhere = followed_elsewhere
        self._shared = followed_elsewhere is not None
        self._flow = flow
        self._metrics = metrics
        self._spawn = spawn
        self._appender = Appender(store, metrics, self._appended)
        self._confirms = Confirms(store, metrics, seconds=flow.confirm_seconds, batch=flow.confirm_batch, spawn=spawn)
        self._followers: dict[LogKey, list[Follower]] = {}
        self._stored: Callable[[LogKey, StoredMessage, Appended], None] | None = None
        self._highest = 0
        self._clock = clock
        self._started = int(clock.wall() * 1e6)
        self._sent_to: dict[tuple[LogKey, str], int] = {}
        self._pulls: dict[tuple[LogKey, str], asyncio.Event] = {}

    @property
    def available(self) -> bool:
        """Whether the store took the last batch."""
        return self._appender.available

    async def probe(self) -> None:
        """Find out whether a store that failed takes something again: nobody may send while the node is not ready.

        By a message, for a store that is full may take all else.
        """
        if not self.available:
            message = Message(Topic(_PROBE.name), None, {}, b"")
            try:
                await self._store.append([Append(_PROBE, message, _PROBE_KEPT, self._highest)])
            except StoreUnavailable:
                self._metrics.store_failures += 1
            else:
                self._appender.recovered()

    @property
    def waiting(self) -> int:
        """How many appends wait for the store."""
        return self._appender.waiting

    def on_stored(self, stored: Callable[[LogKey, StoredMessage, Appended], None]) -> None:
        """Who is told of each message appended here, once its followers here are."""
        self._stored = stored

    async def run(self) -> None:
        """Append what comes in, for as long as the node lives."""
        await self._appender.run()

    async def flush(self) -> None:
        """Return once all appends and confirms handed in so far have their outcome."""
        await self._appender.flush()
        await self._confirms.flush()

    # ── append and tell ───────────────────────────────────────────────────────────────────────────────

    def append(self, item: Append, stored: Stored) -> None:
        """Append `item`, then announce it. `stored` is called once its outcome is known."""
        self._appender.append(item, stored)

    def followed(self, log: LogKey) -> bool:
        """Whether anybody follows `log` here."""
        return log in self._followers

    @property
    def followed_logs(self) -> Collection[LogKey]:
        """The logs that somebody follows here."""
        return self._followers.keys()

    @property
    def unproven(self) -> int:
        """How many cursors have been sent what they have not confirmed, as far as this node remembers."""
        return len(self._sent_to)

    def delivers(self, log: LogKey, owner: str) -> bool:
        """Whether a subscription here delivers `log` to `owner`."""
        return any(follower.owner == owner for follower in self._followers.get(log, ()))

    @property
    def highest(self) -> int:
        """The highest offset that was seen in any log; later appends go above it."""
        return self._highest

    def saw(self, offset: int) -> None:
        """An offset was seen, in whatever log."""
        if offset > self._highest:
            self._highest = offset

    def _appended(self, item: Append, at: Appended) -> None:
        if at.position.offset > self._highest:
            self._highest = at.position.offset
        followed = item.log in self._followers
        if followed or self._shared or item.log.user is None:
            live = item.live or at.live
            stored = StoredMessage(item.message, at.position, at.previous, at.number, live)
            if followed:
                self.announce(item.log, stored)
            if self._stored is not None:
                self._stored(item.log, stored, at)

    def announce(self, log: LogKey, stored: StoredMessage) -> None:
        """`stored` stands in `log`: hand it to those who follow it."""
        frames: dict[Hashable, bytes] = {}
        for follower in tuple(self._followers.get(log, ())):
            room = follower.room > 0
            match follower.tail.announce(stored, ready=room and stored.live):
                case Deliver():
                    follower.send_shared(stored, frames)
                    self._note_sent(follower, stored.position.offset)
                case Fetch() if room or follower.outbox.dirty:
                    self._spawn(self._catch_up(follower))
                case Fetch():
                    follower.tail.pause()
                case None:
                    pass

    def heard(self, log: LogKey, position: Position) -> None:
        """`log` reaches up to `position` at the least: what followers here do not have is read."""
        for follower in tuple(self._followers.get(log, ())):
            self._notice(follower, Head(position, 0, 0, 0))

    def _notice(self, follower: Follower, head: Head) -> None:
        if follower.tail.notice(head) is not None:
            self._spawn(self._catch_up(follower))

    async def reconcile(self, logs: Iterable[LogKey] | None = None) -> None:
        """Compare the heads of `logs` (None: of all followed here) with what was sent, and read what was missed."""
        followed = [log for log in (self._followers if logs is None else logs) if log in self._followers]
        for start in range(0, len(followed), self._flow.reconcile_logs):
            some = followed[start : start + self._flow.reconcile_logs]
            for log, head in zip(some, await self._store.heads(some), strict=True):
                for follower in tuple(self._followers.get(log, ())):
                    self._notice(follower, head)

    # ── follow ────────────────────────────────────────────────────────────────────────────────────────

    def follow(
        self, follower: Follower, ready: Callable[[], None], visible: asyncio.Future[None] | None = None
    ) -> None:
        """From now on `follower` gets what its log holds after its cursor, and then all that comes.

        Its log is read once `visible` is done: other nodes know then where to tell of what they append. `ready`
        is called before the first message is sent, once the place to start from is known.
        """
        self._followers.setdefault(follower.log, []).append(follower)
        self._spawn(self._start(follower, ready, visible))

    def unfollow(self, follower: Follower) -> None:
        """Nothing more for `follower`. What it has not confirmed stays."""
        follower.closed = True
        followers = self._followers.get(follower.log)
        if followers is not None and follower in followers:
            followers.remove(follower)
            if not followers:
                del self._followers[follower.log]
            if self._shared and follower.owner is not None and not self.delivers(follower.log, follower.owner):
                # Whoever comes next is told by the store what may have been seen.
                self._sent_to.pop((follower.log, follower.owner), None)

    def resume(self, follower: Follower) -> None:
        """There is room again, perhaps: send what waits in the log."""
        if follower.tail.behind and follower.room > 0 and follower.tail.resume() is not None:
            self._spawn(self._catch_up(follower))

    def resend(self, follower: Follower, stored: StoredMessage) -> None:
        """A message that the client refused (NACK) goes out once more, marked."""
        if not follower.closed and follower.window.holds(stored.position.offset):
            self._metrics.redelivered += 1
            follower.repeat(stored)

    async def _start(self, follower: Follower, ready: Callable[[], None], visible: asyncio.Future[None] | None) -> None:
        if visible is not None:
            # Where the others cannot be told, the node goes on alone: it compares the logs when it can.
            await asyncio.wait({visible}, timeout=_VISIBLE_SECONDS)
        if follower.owner is None:
            await self._start_at_position(follower)
        else:
            await self._start_at_cursor(follower, follower.owner)
        ready()
        if not follower.closed:
            await self._catch_up(follower)

    async def _start_at_cursor(self, follower: Follower, owner: str) -> None:
        while (pull := self._pulls.get((follower.log, owner))) is not None:
            await pull.wait()
        cursor = await self._insist(follower, lambda: self._cursor(follower.log, owner))
        while cursor is not None and cursor.leased:  # a pull on another node hands out what waits
            await asyncio.sleep(_LEASED_SECONDS)
            cursor = await self._insist(follower, lambda: self._cursor(follower.log, owner))
        if self._shared:
            heads = await self._insist(follower, lambda: self._store.heads([follower.log]))
            if heads is not None:
                follower.began = heads[0].last
        if cursor is not None:
            follower.attempted = follower.persisted = cursor.attempted
            follower.tail.begin(cursor.confirmed, cursor.number)

    async def _cursor(self, log: LogKey, owner: str) -> Cursor:
        """The cursor, with what is confirmed and not yet written."""
        cursor = await self._store.cursor(log, owner)
        pending = self._confirms.pending(log, owner)
        if pending is None or pending.position <= cursor.confirmed:
            return cursor
        return Cursor(pending.position, pending.number, cursor.attempted, cursor.leased)

    async def _start_at_position(self, follower: Follower) -> None:
        """A topic's history: after the client's own position if the log still reaches back to it."""
        heads = await self._insist(follower, lambda: self._store.heads([follower.log]))
        if heads is None:
            return
        (head,) = heads
        after = follower.after
        if after is None:
            follower.tail.begin(head.last, head.number)
        elif _recoverable(after, head.last, head.floor):
            follower.recovered = True
            page = await self._insist(follower, lambda: self._store.read(follower.log, after, 1, 1))
            first = page.messages[0].number if page is not None and page.messages else head.number + 1
            follower.tail.begin(after, first - 1)
        else:
            follower.recovered = False
            # Of no epoch: all that the log holds lies above it, whatever epochs that is of.
            follower.tail.begin(Position(Epoch(0), head.floor), head.floor_number)
        follower.head = head

    async def _catch_up(self, follower: Follower) -> None:
        """Read the log page by page, until its end or until there is no room."""
        tail = follower.tail
        while not follower.closed:
            while follower.room <= 0 and follower.outbox.dirty:
                await asyncio.sleep(0)  # full only until the tick's flush
            room = follower.room
            if room <= 0:
                tail.pause()
                return
            page = await self._read(follower, room)
            if page is None or follower.closed:
                return
            if not page.messages:
                tail.page([], page.head)
            for found in page.messages:
                if follower.room <= 0:
                    break  # a page is bounded in bodies, the outbox in bytes: the rest is read again
                for stored, skipped in tail.page([found], page.head):
                    again = self._seen(follower, stored)
                    self._metrics.redelivered += again
                    self._metrics.skipped += skipped
                    follower.send(stored, redelivered=again, skipped=skipped)
            self._note_sent(follower, tail.sent.offset)
            if tail.sent >= page.head.last and tail.settle() is None:
                return

    async def _read(self, follower: Follower, room: int) -> Page | None:
        limit = min(room, self._flow.page_messages)
        size = max(1, min(follower.window.room_bytes, self._flow.page_bytes))
        log, after = follower.log, follower.tail.sent
        page = await self._insist(follower, lambda: self._store.read(log, after, limit, size))
        if page is None or not page.messages or follower.owner is None:
            return page
        through, owner = page.messages[-1].position.offset, follower.owner
        if through > follower.persisted:
            # Stored before it is sent: whoever reads this log after a crash knows what may have been seen.
            await self._insist(follower, lambda: self._store.attempt(log, owner, through))
            follower.persisted = through
        return page

    def _seen(self, follower: Follower, stored: StoredMessage) -> bool:
        """Whether the owner of the cursor may have been sent `stored` before."""
        if follower.owner is None:
            return False
        offset = stored.position.offset
        # Of another subscription of the owner here, which may have been ahead.
        sent = offset <= self._sent_to.get((follower.log, follower.owner), 0)
        if self._shared:
            # What came after the subscription began is this subscription's to send, whoever else is sent it too.
            return stored.position <= follower.began and (sent or stored.live or offset <= follower.attempted)
        # Of what was stored since this node began, `_sent_to` knows all; of the rest, only what the store tells.
        return sent or (offset <= self._started and (stored.live or offset <= follower.attempted))

    def _note_sent(self, follower: Follower, offset: int) -> None:
        if follower.owner is not None:
            key = (follower.log, follower.owner)
            if offset > self._sent_to.get(key, 0):
                self._sent_to[key] = offset

    async def _insist(self, follower: Follower, call: Callable[[], Awaitable[T]]) -> T | None:
        """The store's answer, asked for until it comes; None once the follower is gone."""
        while not follower.closed:
            try:
                return await call()
            except StoreUnavailable:
                self._metrics.store_failures += 1
                await asyncio.sleep(_RETRY_SECONDS)
        return None

    # ── confirm and pull ──────────────────────────────────────────────────────────────────────────────

    def confirm(self, follower: Follower, proven: Proven) -> None:
        """Move the follower's cursor to `proven`, in a moment, and go on if that made room."""
        if follower.owner is None:
            return
        key = (follower.log, follower.owner)
        if self._sent_to.get(key, _EVERYTHING) <= proven.position.offset and not self._behind(key, proven):
            del self._sent_to[key]
        self._confirms.add(follower.log, follower.owner, proven)
        if follower.tail.behind:
            self.resume(follower)

    def _behind(self, key: tuple[LogKey, str], proven: Proven) -> bool:
        # Another tab may have read the cursor before this confirm, and will be sent again what this one proves.
        log, owner = key
        return any(other.owner == owner and other.tail.sent < proven.position for other in self._followers.get(log, ()))

    def after_confirms(self, done: Callable[[], None]) -> None:
        """Call `done` once every confirm handed in so far is stored."""
        self._confirms.after(done)

    @asynccontextmanager
    async def pull(self, log: LogKey, owner: str = SHARED) -> AsyncIterator[Sequence[StoredMessage]]:
        """What waits in `log` above the cursor, oldest first, at most `pull_messages`.

        Nothing where a live subscription on the same cursor delivers it. Leaving the context without an error
        moves the cursor past what was handed out; a message that came meanwhile stays. Raises StoreUnavailable.
        """
        key = (log, owner)
        while (other := self._pulls.get(key)) is not None:
            await other.wait()
        if self.delivers(log, owner):
            yield []
            return
        ended = self._pulls[key] = asyncio.Event()
        holder = secrets.token_hex(8)
        try:
            if not await self._store.lease(log, owner, holder, _PULL_SECONDS):
                yield []
                return
            if self._followed_elsewhere is not None and await self._followed_elsewhere(log, owner):
                yield []
                return
            async with self._handed_out(log, owner) as messages:
                yield messages
        finally:
            del self._pulls[key]
            ended.set()
            await self._store.release(log, owner, holder)

    @asynccontextmanager
    async def _handed_out(self, log: LogKey, owner: str) -> AsyncIterator[Sequence[StoredMessage]]:
        cursor = await self._cursor(log, owner)
        page = await self._store.read(log, cursor.confirmed, self._flow.pull_messages, self._flow.page_bytes)
        if page.messages:
            last = page.messages[-1]
            await self._store.attempt(log, owner, last.position.offset)
            self._sent_to[log, owner] = max(self._sent_to.get((log, owner), 0), last.position.offset)
        yield page.messages
        if page.messages:
            await self._store.confirm([Confirm(log, owner, last.position, last.number)])
            if self._sent_to.get((log, owner), 0) <= last.position.offset:
                self._sent_to.pop((log, owner), None)


def _recoverable(after: Position, last: Position, floor: int) -> bool:
    """Whether nothing is missing between the client's position and what the log holds."""
    if after.offset == 0:
        return floor == 0
    return after.epoch == last.epoch and floor <= after.offset <= last.offset
