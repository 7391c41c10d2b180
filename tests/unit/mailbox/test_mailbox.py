"""What followers of one log are sent: to the last message, in order, once, and marked where it may have been seen."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.support.frames import Frame, decode

from postroom.channel import Retention
from postroom.clock import SystemClock
from postroom.delivery.window import Window
from postroom.destination import UserQueue
from postroom.errors import PostroomError, Refused, StoreUnavailable
from postroom.identity import UserName
from postroom.mailbox import Flow, Mailbox
from postroom.message import Message
from postroom.metrics import Metrics
from postroom.outbox import Flusher, Outbox
from postroom.position import LogKey, Position
from postroom.store.base import SHARED, Append, Appended, Page
from postroom.store.memory import MemoryStore
from postroom.subscription import Follower, Subscription
from postroom.transport.base import Framing

BEN = UserName("ben")
INBOX = UserQueue(BEN, "/queue/inbox")
LOG = LogKey(BEN, INBOX.name)


class Pipe:
    """A client: decodes what it gets. While `stuck` it reads nothing, and the transport's buffer fills."""

    def __init__(self) -> None:
        self.got: list[Frame] = []
        self.stuck = False
        self.buffered_bytes = 0

    @property
    def framing(self) -> Framing:
        return lambda payload: payload

    def write(self, data: bytes) -> None:
        self.got += decode(data)
        if self.stuck:
            self.buffered_bytes += len(data)

    def probe(self, token: bytes) -> bool:
        return False

    def close(self, code: int, reason: str = "") -> None: ...

    def abort(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Tab:
    """One follower of the log, and its client."""

    def __init__(
        self, mailbox: Mailbox, *, owner: str = SHARED, max_messages: int = 1000, max_bytes: int = 1 << 20
    ) -> None:
        self.pipe = Pipe()
        self.cut = False
        self._mailbox = mailbox
        self.outbox = Outbox(
            self.pipe, Flusher(asyncio.get_running_loop()), max_bytes=max_bytes, overflowed=self._overflowed
        )
        subscription = Subscription(
            "s",
            "/user/queue/inbox",
            INBOX,
            ack="auto",
            version="1.2",
            framing=self.pipe.framing,
            outbox=self.outbox,
        )
        window = Window(max_messages=max_messages, max_bytes=1 << 20)
        self.follower = Follower(subscription, LOG, owner, window=window, outbox=self.outbox)
        mailbox.follow(self.follower, lambda: None)

    @property
    def texts(self) -> list[str]:
        """All that it got."""
        return [frame.text for frame in self.pipe.got]

    @property
    def marked(self) -> list[str]:
        """What of it was marked as perhaps seen before."""
        return [frame.text for frame in self.pipe.got if frame.headers.get("redelivered") == "true"]

    def prove(self) -> None:
        """All that was sent has arrived."""
        proven = self.follower.window.prove(self.follower.window.last)
        if proven is not None:
            self._mailbox.confirm(self.follower, proven)

    def read_on(self) -> None:
        """A stuck client reads all that waits for it, and the transport says so."""
        self.pipe.buffered_bytes = 0
        self.outbox.drained()
        self._mailbox.resume(self.follower)

    def _overflowed(self) -> None:
        self.cut = True


class SlowToRead(MemoryStore):
    """A store whose logs are read only while `reading` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = asyncio.Event()
        self.reading.set()
        self.pages = 0

    async def read(self, log: LogKey, after: Position, limit: int, max_bytes: int) -> Page:
        await self.reading.wait()
        self.pages += 1
        return await super().read(log, after, limit, max_bytes)


class Full(MemoryStore):
    """A store without room for messages while `full`; of cursors it takes note, as a server short of memory does."""

    full = True

    async def append(self, batch: Sequence[Append]) -> Sequence[Appended | Refused]:
        if self.full:
            raise StoreUnavailable("there is no room")
        return await super().append(batch)


async def _nobody(log: LogKey, owner: str) -> bool:
    return False


@asynccontextmanager
async def running(store: MemoryStore, *, among_nodes: bool = False) -> AsyncIterator[Mailbox]:
    async with asyncio.TaskGroup() as tasks:

        def spawn(work: Coroutine[Any, Any, None]) -> None:
            tasks.create_task(work)

        flow = Flow(page_messages=50, confirm_seconds=0.0)
        elsewhere = _nobody if among_nodes else None
        mailbox = Mailbox(
            store, flow=flow, metrics=Metrics(), clock=SystemClock(), spawn=spawn, followed_elsewhere=elsewhere
        )
        appender = tasks.create_task(mailbox.run())
        yield mailbox
        appender.cancel()


async def append(mailbox: Mailbox, *texts: str) -> None:
    """Append, as somebody's SENDs; returns once they are stored and all that follows from it is done."""
    for text in texts:
        item = Append(
            LOG,
            Message(INBOX, None, {}, text.encode()),
            Retention(),
            mailbox.highest,
            live=mailbox.followed(LOG),
        )
        mailbox.append(item, _stored)
    await settled(mailbox)


def _stored(outcome: Appended | PostroomError) -> None:
    assert isinstance(outcome, Appended)


async def settled(mailbox: Mailbox) -> None:
    """Return once nothing moves any more: this store never waits, so some turns of the loop are enough."""
    await mailbox.flush()
    for _ in range(100):
        await asyncio.sleep(0)
    await mailbox.flush()


def numbered(start: int, end: int) -> list[str]:
    return [str(number) for number in range(start, end)]


# ── two tabs, one cursor ──────────────────────────────────────────────────────────────────────────────────


async def test_what_both_tabs_get_at_once_is_new_to_both() -> None:
    async with running(MemoryStore()) as mailbox:
        one, two = Tab(mailbox), Tab(mailbox)
        await settled(mailbox)
        await append(mailbox, "a")
        one.prove()
        await append(mailbox, "b")
        assert one.texts == two.texts == ["a", "b"]
        assert one.marked == two.marked == []


async def test_what_one_tab_has_proven_is_marked_for_one_that_had_begun_before() -> None:
    """It read the cursor before the proof and the log behind it: it is sent what its user has perhaps seen."""
    store = SlowToRead()
    async with running(store) as mailbox:
        await append(mailbox, "a", "b")
        one = Tab(mailbox)
        await settled(mailbox)
        store.reading.clear()
        two = Tab(mailbox)
        await settled(mailbox)
        one.prove()
        await settled(mailbox)
        store.reading.set()
        await append(mailbox, "c")
        assert (one.texts, one.marked) == (["a", "b", "c"], [])
        assert (two.texts, two.marked) == (["a", "b", "c"], ["a", "b"])


async def test_what_one_tab_was_sent_and_has_not_proven_is_marked_for_the_next() -> None:
    async with running(MemoryStore()) as mailbox:
        await append(mailbox, "a")
        one = Tab(mailbox)
        await settled(mailbox)
        two = Tab(mailbox)
        await append(mailbox, "b")
        assert (one.texts, one.marked) == (["a", "b"], [])
        assert (two.texts, two.marked) == (["a", "b"], ["a"])


async def test_what_one_tab_has_proven_does_not_come_to_a_later_one() -> None:
    async with running(MemoryStore()) as mailbox:
        one = Tab(mailbox)
        await append(mailbox, "a")
        one.prove()
        await settled(mailbox)
        later = Tab(mailbox)
        await append(mailbox, "b")
        assert (later.texts, later.marked) == (["b"], [])


async def test_a_tab_that_lags_moves_no_cursor_back_and_is_told_what_may_have_been_seen() -> None:
    store = MemoryStore()
    async with running(store) as mailbox:
        quick, slow = Tab(mailbox), Tab(mailbox, max_messages=1)
        await settled(mailbox)
        await append(mailbox, "a", "b", "c")
        assert slow.texts == ["a"]
        quick.prove()
        await settled(mailbox)
        stands = (await store.cursor(LOG, SHARED)).confirmed
        while slow.follower.window.last:
            slow.prove()
            await settled(mailbox)
        assert (slow.texts, slow.marked) == (["a", "b", "c"], ["b", "c"])
        assert (await store.cursor(LOG, SHARED)).confirmed == stands
        await append(mailbox, "d")
        assert (quick.marked, slow.marked) == ([], ["b", "c"])
        assert (quick.texts[-1], slow.texts[-1]) == ("d", "d")


async def test_a_device_does_not_hear_of_another_ones_proof() -> None:
    async with running(MemoryStore()) as mailbox:
        await append(mailbox, "a")
        phone = Tab(mailbox, owner="phone")
        await settled(mailbox)
        phone.prove()
        await settled(mailbox)
        desk = Tab(mailbox, owner="desk")
        await settled(mailbox)
        assert (desk.texts, desk.marked) == (["a"], [])


# ── among nodes ───────────────────────────────────────────────────────────────────────────────────────────


async def test_what_came_after_a_tab_began_is_its_own_whatever_the_other_tab_has_had() -> None:
    """Among nodes tells come out of order, so that a tab reads the log again and again: that makes nothing old."""
    async with running(MemoryStore(), among_nodes=True) as mailbox:
        quick, slow = Tab(mailbox), Tab(mailbox, max_messages=1)
        await settled(mailbox)
        await append(mailbox, "a", "b", "c")
        while slow.follower.window.last:
            slow.prove()
            await settled(mailbox)
        assert (quick.texts, quick.marked) == (["a", "b", "c"], [])
        assert (slow.texts, slow.marked) == (["a", "b", "c"], [])


@pytest.mark.parametrize("while_away", [False, True])
async def test_what_a_tab_that_is_gone_was_sent_is_marked_for_the_next(while_away: bool) -> None:
    async with running(MemoryStore(), among_nodes=True) as mailbox:
        if while_away:
            await append(mailbox, "a")
        gone = Tab(mailbox)
        await settled(mailbox)
        if not while_away:
            await append(mailbox, "a")
        assert (gone.texts, gone.marked) == (["a"], [])
        mailbox.unfollow(gone.follower)
        again = Tab(mailbox)
        await append(mailbox, "b")
        assert (again.texts, again.marked) == (["a", "b"], ["a"])


async def test_nothing_is_kept_of_users_who_went_without_proof() -> None:
    async with running(MemoryStore(), among_nodes=True) as mailbox:
        one, two, phone = Tab(mailbox), Tab(mailbox), Tab(mailbox, owner="phone")
        await append(mailbox, "a")
        for tab, left in ((one, 2), (two, 1), (phone, 0)):
            assert one.texts == tab.texts == ["a"]
            mailbox.unfollow(tab.follower)
            assert mailbox.unproven == left


# ── the store is full ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_store_counts_as_back_once_it_takes_messages_and_not_before() -> None:
    store = Full()
    outcomes: list[Appended | PostroomError] = []
    async with running(store) as mailbox:
        mailbox.append(Append(LOG, Message(INBOX, None, {}, b"a"), Retention(), 0), outcomes.append)
        await settled(mailbox)
        assert [type(outcome) for outcome in outcomes] == [StoreUnavailable]
        for _ in range(3):
            await mailbox.probe()
            assert not mailbox.available
        store.full = False
        await mailbox.probe()
        assert mailbox.available


# ── no more room ──────────────────────────────────────────────────────────────────────────────────────────


def without_holes(tab: Tab) -> bool:
    """Whether each message names the one before it as its predecessor."""
    offsets = [frame.headers["offset"] for frame in tab.pipe.got]
    return [frame.headers["previous"] for frame in tab.pipe.got[1:]] == offsets[:-1]


async def test_a_client_that_reads_slowly_gets_part_of_a_page_and_later_the_rest() -> None:
    store = SlowToRead()
    async with running(store) as mailbox:
        await append(mailbox, *numbered(0, 40))
        tab = Tab(mailbox, max_bytes=4000)
        tab.pipe.stuck = True
        await settled(mailbox)
        first = len(tab.texts)
        assert 0 < first < 40
        assert store.pages == 1, "it stopped within the first page"
        await append(mailbox, *numbered(40, 45))  # live messages do not overtake
        assert len(tab.texts) == first
        rounds = 0
        while len(tab.texts) < 45:
            before = len(tab.texts)
            tab.read_on()
            await settled(mailbox)
            assert len(tab.texts) > before
            rounds += 1
        assert rounds > 1
        assert tab.texts == numbered(0, 45)
        assert without_holes(tab)
        assert tab.marked == []
        assert not tab.cut


async def test_a_window_that_is_full_within_a_page_goes_on_with_each_proof() -> None:
    async with running(MemoryStore()) as mailbox:
        await append(mailbox, *numbered(0, 10))
        tab = Tab(mailbox, max_messages=3)
        await settled(mailbox)
        for end in (3, 6, 9, 10):
            assert tab.texts == numbered(0, end)
            tab.prove()
            await settled(mailbox)
        await append(mailbox, "live")
        assert tab.texts == [*numbered(0, 10), "live"]
        assert without_holes(tab)
        assert tab.marked == []


@pytest.mark.parametrize("leave", [0, 1, 2])
async def test_who_goes_with_a_page_half_sent_gets_the_rest_and_the_unproven_again(leave: int) -> None:
    """A page is read whole, but only what was sent of it may have been seen."""
    async with running(MemoryStore()) as mailbox:
        await append(mailbox, *numbered(0, 10))
        gone = Tab(mailbox, max_messages=3)
        await settled(mailbox)
        proven = gone.follower.window.prove(gone.follower.window.unproven(1 << 62)[leave].position.offset)
        assert proven is not None
        mailbox.unfollow(gone.follower)
        mailbox.confirm(gone.follower, proven)
        await settled(mailbox)
        again = Tab(mailbox)
        await settled(mailbox)
        assert again.texts == numbered(leave + 1, 10)
        assert again.marked == numbered(leave + 1, 3)
