"""What every store of logs must do. Subclass it, and give it a fixture `make`."""

# ruff: noqa: D102 (a test says its promise in its name)

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from postroom.channel import Retention
from postroom.destination import Topic, UserQueue
from postroom.errors import KeyReused, MailboxFull, MessageTooLarge, Refused
from postroom.findings import Checks
from postroom.identity import UserName
from postroom.message import Message, StoredMessage
from postroom.position import START, Epoch, Head, LogKey, Position
from postroom.store.base import (
    IDEMPOTENCY_SECONDS,
    SHARED,
    Append,
    Appended,
    Confirm,
    Store,
)
from postroom.testing.contracts.marks import asynchronous

EMPTY = Head(START, 0, 0, 0)
INBOX = LogKey(UserName("bob"), "/queue/inbox")
OUTBOX = LogKey(UserName("bob"), "/queue/outbox")
HISTORY = LogKey(None, "/topic/news")
KEPT = Retention()
SMALL = Retention(max_messages=3)
RING = Retention(max_messages=3, on_overflow="drop-oldest")
EVERYTHING = 1 << 30


class HandClock:
    """A clock that a test turns by hand."""

    def __init__(self, wall: float = 1_800_000_000.0) -> None:
        self._wall = wall
        self._monotonic = 1000.0

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return self._monotonic

    def wall(self) -> float:
        """Seconds since 1970."""
        return self._wall

    def turn(self, seconds: float) -> None:
        """Let time pass."""
        self._monotonic += seconds
        self._wall += seconds

    def set_back(self, seconds: float) -> None:
        """Let somebody set the date back; the monotonic clock does not care."""
        self._wall -= seconds


Make = Callable[[HandClock], Store]
"""Makes an engine, not yet open. Those that one test makes are, if durable, the same store opened again."""


def item(
    body: bytes = b"hello",
    *,
    log: LogKey = INBOX,
    sender: str | None = "alice",
    headers: dict[str, str] | None = None,
    retention: Retention = KEPT,
    at_least: int = 0,
    live: bool = False,
    key: str | None = None,
    tied: bool = False,
) -> Append:
    """One message for `log`."""
    destination = Topic(log.name) if log.user is None else UserQueue(log.user, log.name)
    name = UserName(sender) if sender is not None else None
    message = Message(destination, name, headers if headers is not None else {}, body)
    return Append(log, message, retention, at_least, live, key, tied)


def stored(outcome: Appended | Refused) -> Appended:
    """The outcome, which must not be a refusal."""
    assert isinstance(outcome, Appended), outcome
    return outcome


async def add(store: Store, *items: Append) -> list[Appended]:
    """Append `items` in one batch, none of which may be refused."""
    return [stored(outcome) for outcome in await store.append(items)]


async def everything(store: Store, log: LogKey = INBOX) -> list[StoredMessage]:
    """All that `log` holds."""
    return [*(await store.read(log, START, 10_000, EVERYTHING)).messages]


async def bodies(store: Store, log: LogKey = INBOX) -> list[bytes]:
    """The bodies of all that `log` holds."""
    return [each.message.body for each in await everything(store, log)]


async def swept(store: Store) -> int:
    """Sweep until nothing goes any more; how many went."""
    total = 0
    for _ in range(4):
        total += await store.sweep()
    return total


class StoreFixtures:
    """The fixtures of the store's contracts. `make` is the engine's own."""

    @pytest.fixture
    def clock(self) -> HandClock:
        """The time."""
        return HandClock()

    @pytest.fixture
    def make(self) -> Make:
        """Give the kit your engine: override this."""
        pytest.fail("override the fixture `make`: it returns a function from a clock to an engine")

    @pytest_asyncio.fixture
    async def store(self, make: Make, clock: HandClock) -> AsyncIterator[Store]:
        """One open engine."""
        async with make(clock) as opened:
            yield opened


@asynchronous
class LogStoreContract(StoreFixtures):
    """The promises of `postroom.store.base.LogStore`."""

    # ── append ────────────────────────────────────────────────────────────────────────────────────────

    async def test_a_message_comes_back_as_it_was_appended(self, store: Store) -> None:
        every_byte = bytes(range(256))
        one = item(every_byte, headers={"content-type": "text/plain", "x": "ä\n:\\ "}, live=True)
        (at,) = await add(store, one)
        assert await everything(store) == [StoredMessage(one.message, at.position, 0, 1, True)]

    async def test_sender_headers_and_body_may_be_absent(self, store: Store) -> None:
        await add(store, item(b"", sender=None))
        (found,) = await everything(store)
        assert (found.message.sender, found.message.headers, found.message.body) == (None, {}, b"")
        assert found.live is False

    async def test_a_topic_keeps_a_log_too(self, store: Store) -> None:
        (at,) = await add(store, item(b"news", log=HISTORY))
        (found,) = await everything(store, HISTORY)
        assert found.message.destination == Topic("/topic/news")
        assert (await store.heads([HISTORY])) == [Head(at.position, 1, 0, 0)]

    async def test_answers_come_in_the_order_of_the_items(self, store: Store) -> None:
        first, other, second = await add(store, item(b"1"), item(b"x", log=OUTBOX), item(b"2"))
        assert first.position.offset < second.position.offset
        assert (first.previous, first.number) == (0, 1)
        assert (second.previous, second.number) == (first.position.offset, 2)
        assert (other.previous, other.number) == (0, 1)
        assert await bodies(store) == [b"1", b"2"]
        assert await bodies(store, OUTBOX) == [b"x"]

    async def test_an_empty_batch_has_no_answers(self, store: Store) -> None:
        assert [*await store.append([])] == []

    async def test_each_message_names_the_one_before_it(self, store: Store) -> None:
        for n in range(5):
            await add(store, item(b"%d" % n), item(b"%d'" % n))
        found = await everything(store)
        assert [each.number for each in found] == [*range(1, 11)]
        offsets = [each.position.offset for each in found]
        assert [each.previous for each in found] == [0, *offsets[:-1]]
        assert offsets == sorted(set(offsets))

    async def test_an_offset_is_the_time_in_microseconds(self, store: Store, clock: HandClock) -> None:
        (at,) = await add(store, item())
        assert at.position.offset == int(clock.wall() * 1e6)
        assert at.position.epoch >= 1

    async def test_offsets_grow_while_the_clock_stands_or_goes_back(self, store: Store, clock: HandClock) -> None:
        first, second = await add(store, item(), item())
        clock.set_back(3600)
        (third,) = await add(store, item())
        assert second.position.offset == first.position.offset + 1
        assert third.position.offset == second.position.offset + 1

    async def test_an_offset_is_above_at_least(self, store: Store, clock: HandClock) -> None:
        ahead = int((clock.wall() + 60) * 1e6)
        (at,) = await add(store, item(at_least=ahead))
        assert at.position.offset == ahead + 1

    async def test_what_waits_together_is_stored_in_the_order_of_the_calls(self, store: Store) -> None:
        batches = [[item(b"%d.%d" % (n, k)) for k in range(n % 3 + 1)] for n in range(50)]
        answers = await asyncio.gather(*(store.append(batch) for batch in batches))
        assert await bodies(store) == [each.message.body for batch in batches for each in batch]
        numbers = [stored(outcome).number for answer in answers for outcome in answer]
        assert numbers == [*range(1, len(numbers) + 1)]

    async def test_a_batch_may_be_large(self, store: Store) -> None:
        batch = [item(b"%d" % n) for n in range(2500)]
        answers = await add(store, *batch)
        assert [answer.number for answer in answers] == [*range(1, 2501)]
        assert await bodies(store) == [each.message.body for each in batch]

    async def test_a_caller_that_gives_up_spoils_nothing(self, store: Store) -> None:
        waiting = asyncio.ensure_future(store.append([item(b"1")]))  # noqa: TID251
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await add(store, item(b"2"))
        assert (await bodies(store))[-1] == b"2"

    async def test_a_check_of_what_works_finds_nothing_grave(self, make: Make, clock: HandClock) -> None:
        engine = make(clock)
        if not isinstance(engine, Checks):
            pytest.skip("the engine does not check itself")
        assert [finding for finding in await engine.check() if finding.grave] == []
        async with make(clock) as opened:
            await add(opened, item())
        assert [finding for finding in await make(clock).check() if finding.grave] == []  # type: ignore[attr-defined]

    # ── idempotency keys ──────────────────────────────────────────────────────────────────────────────

    async def test_a_key_that_comes_again_gets_the_first_position(self, store: Store) -> None:
        (first,) = await add(store, item(b"once", key="k"))
        await add(store, item(b"between"))
        (second,) = await add(store, item(b"once", key="k"))
        assert second == Appended(first.position, first.previous, first.number, duplicate=True)
        assert not first.duplicate
        assert await bodies(store) == [b"once", b"between"]

    async def test_a_key_may_come_twice_in_one_batch(self, store: Store) -> None:
        first, second, third = await add(store, item(b"a", key="k"), item(b"a", key="k"), item(b"b"))
        assert second == Appended(first.position, first.previous, first.number, duplicate=True)
        assert third.number == 2

    async def test_a_key_for_another_body_is_refused(self, store: Store) -> None:
        await add(store, item(b"a", key="k"))
        (outcome,) = await store.append([item(b"b", key="k")])
        assert isinstance(outcome, KeyReused)
        assert await bodies(store) == [b"a"]

    async def test_a_key_counts_for_one_log_and_one_sender(self, store: Store) -> None:
        answers = await add(
            store,
            item(b"a", key="k"),
            item(b"b", key="k", sender="mallory"),
            item(b"c", key="k", log=OUTBOX),
            item(b"d", key="k", sender=None),
            item(b"e", key="other"),
        )
        assert not any(answer.duplicate for answer in answers)

    async def test_a_key_is_known_after_its_message_is_gone(self, store: Store) -> None:
        (first,) = await add(store, item(b"a", key="k"))
        await store.trim(INBOX, first.position.offset)
        (second,) = await add(store, item(b"a", key="k"))
        assert second.duplicate

    async def test_a_key_of_a_refused_message_is_free(self, store: Store) -> None:
        tiny = Retention(max_bytes=3)
        (outcome,) = await store.append([item(b"long", key="k", retention=tiny)])
        assert isinstance(outcome, MessageTooLarge)
        (at,) = await add(store, item(b"ok", key="k", retention=tiny))
        assert not at.duplicate

    @pytest.mark.parametrize("sweeps", [False, True])
    async def test_a_key_is_remembered_for_its_window(self, store: Store, clock: HandClock, sweeps: bool) -> None:
        await add(store, item(b"a", key="k"))
        clock.turn(IDEMPOTENCY_SECONDS - 1)
        if sweeps:
            await store.sweep()
        assert (await add(store, item(b"a", key="k")))[0].duplicate
        clock.turn(2)
        if sweeps:
            await store.sweep()
        (again,) = await add(store, item(b"b", key="k"))
        assert not again.duplicate
        assert (await add(store, item(b"b", key="k")))[0].duplicate

    # ── bounds ────────────────────────────────────────────────────────────────────────────────────────

    async def test_a_full_log_refuses(self, store: Store) -> None:
        outcomes = await store.append([item(b"%d" % n, retention=SMALL) for n in range(5)])
        assert [type(outcome) for outcome in outcomes] == [Appended] * 3 + [MailboxFull] * 2
        assert await bodies(store) == [b"0", b"1", b"2"]
        assert (await store.heads([INBOX]))[0].number == 3

    async def test_a_full_log_refuses_only_what_is_for_it(self, store: Store) -> None:
        await add(store, *(item(retention=SMALL) for _ in range(3)))
        full, other = await store.append([item(retention=SMALL), item(log=OUTBOX)])
        assert isinstance(full, MailboxFull)
        assert isinstance(other, Appended)

    async def test_a_full_log_drops_its_oldest_where_it_may(self, store: Store) -> None:
        answers = await add(store, *(item(b"%d" % n, retention=RING) for n in range(5)))
        assert await bodies(store) == [b"2", b"3", b"4"]
        second = answers[1]
        assert await store.heads([INBOX]) == [Head(answers[4].position, 5, second.position.offset, 2)]

    async def test_a_batch_larger_than_the_log_leaves_its_end(self, store: Store) -> None:
        await add(store, *(item(b"%d" % n, retention=RING) for n in range(100)))
        assert await bodies(store) == [b"97", b"98", b"99"]

    async def test_a_full_log_first_loses_what_is_confirmed(self, store: Store) -> None:
        first, second, _ = await add(store, *(item(b"%d" % n, retention=SMALL) for n in range(3)))
        await store.cursor(INBOX, SHARED)
        await store.confirm([Confirm(INBOX, SHARED, second.position, second.number)])
        outcomes = await store.append([item(b"%d" % n, retention=SMALL) for n in range(3, 6)])
        assert [type(outcome) for outcome in outcomes] == [Appended, Appended, MailboxFull]
        assert await bodies(store) == [b"2", b"3", b"4"]
        (head,) = await store.heads([INBOX])
        assert (head.floor, head.floor_number) == (second.position.offset, 2)
        assert first.number == 1

    async def test_what_one_owner_has_not_confirmed_is_not_confirmed(self, store: Store) -> None:
        *_, last = await add(store, *(item(retention=SMALL) for _ in range(3)))
        await store.cursor(INBOX, SHARED)
        await store.cursor(INBOX, "phone")
        await store.confirm([Confirm(INBOX, SHARED, last.position, last.number)])
        (outcome,) = await store.append([item(retention=SMALL)])
        assert isinstance(outcome, MailboxFull)

    async def test_a_full_log_counts_bytes_of_bodies_and_headers(self, store: Store) -> None:
        tight = Retention(max_bytes=20)
        ten = item(b"12345", headers={"ab": "cde"}, retention=tight)
        outcomes = await store.append([ten, ten, item(b"", headers={"a": ""}, retention=tight)])
        assert [type(outcome) for outcome in outcomes] == [Appended, Appended, MailboxFull]

    async def test_bytes_make_room_too(self, store: Store) -> None:
        ring = Retention(max_bytes=10, on_overflow="drop-oldest")
        await add(store, *(item(b"x" * n, retention=ring) for n in (3, 3, 3, 8)))
        assert await bodies(store) == [b"x" * 8]
        await add(store, item(b"yy", retention=ring))
        assert await bodies(store) == [b"x" * 8, b"yy"]

    @pytest.mark.parametrize("overflow", ["reject", "drop-oldest"])
    async def test_a_message_larger_than_its_log_is_too_large(self, store: Store, overflow: str) -> None:
        tiny = Retention(max_bytes=4, on_overflow="reject" if overflow == "reject" else "drop-oldest")
        outcomes = await store.append([item(b"1234", retention=tiny), item(b"12345", retention=tiny)])
        assert [type(outcome) for outcome in outcomes] == [Appended, MessageTooLarge]
        assert await bodies(store) == [b"1234"]

    async def test_room_made_by_trimming_is_room(self, store: Store) -> None:
        *_, last = await add(store, *(item(retention=SMALL) for _ in range(3)))
        await store.trim(INBOX, last.position.offset)
        outcomes = await store.append([item(retention=SMALL) for _ in range(4)])
        assert [type(outcome) for outcome in outcomes] == [Appended] * 3 + [MailboxFull]

    # ── read, heads, trim ─────────────────────────────────────────────────────────────────────────────

    async def test_a_page_begins_after_an_offset(self, store: Store) -> None:
        answers = await add(store, *(item(b"%d" % n) for n in range(5)))
        page = await store.read(INBOX, answers[1].position, 2, EVERYTHING)
        assert [each.message.body for each in page.messages] == [b"2", b"3"]
        assert page.head == Head(answers[4].position, 5, 0, 0)

    async def test_an_offset_between_two_messages_will_do(self, store: Store, clock: HandClock) -> None:
        (first,) = await add(store, item(b"1"))
        clock.turn(1)
        await add(store, item(b"2"))
        between = Position(first.position.epoch, first.position.offset + 5)
        page = await store.read(INBOX, between, 10, EVERYTHING)
        assert [each.message.body for each in page.messages] == [b"2"]

    async def test_a_page_after_the_end_is_empty(self, store: Store) -> None:
        (at,) = await add(store, item())
        page = await store.read(INBOX, at.position, 10, EVERYTHING)
        assert [*page.messages] == []
        assert page.head.last == at.position

    async def test_what_a_reader_claims_to_know_is_not_believed(self, store: Store) -> None:
        (before,) = await add(store, item(b"1"))
        page = await store.read(INBOX, Position(Epoch(before.position.epoch + 10**15), 5), 10, EVERYTHING)
        assert [*page.messages] == []
        (after,) = await add(store, item(b"2"))
        (other,) = await add(store, item(b"3", log=OUTBOX))
        assert {after.position.epoch, other.position.epoch} == {before.position.epoch}

    async def test_a_page_holds_no_more_bytes_than_asked_for(self, store: Store) -> None:
        await add(store, *(item(b"x" * n, headers={"not": "counted"}) for n in (4, 4, 2, 1)))
        for max_bytes, expected in ((8, 2), (9, 2), (10, 3), (11, 4), (7, 1)):
            page = await store.read(INBOX, START, 10, max_bytes)
            assert len(page.messages) == expected, max_bytes

    async def test_a_page_holds_at_least_one_message(self, store: Store) -> None:
        await add(store, item(b"x" * 100), item(b"y"))
        page = await store.read(INBOX, START, 10, 1)
        assert [each.message.body for each in page.messages] == [b"x" * 100]

    async def test_an_unknown_log_is_empty(self, store: Store) -> None:
        page = await store.read(INBOX, START, 10, EVERYTHING)
        assert ([*page.messages], page.head) == ([], EMPTY)
        assert [*await store.heads([INBOX, HISTORY])] == [EMPTY, EMPTY]
        await store.trim(INBOX, EVERYTHING)
        assert [*await store.heads([INBOX])] == [EMPTY]

    async def test_heads_come_in_the_order_asked_for(self, store: Store) -> None:
        first, second = await add(store, item(), item(log=OUTBOX))
        heads = await store.heads([OUTBOX, HISTORY, INBOX, OUTBOX])
        assert [head.last for head in heads] == [second.position, START, first.position, second.position]

    async def test_what_is_appended_is_seen_at_once(self, store: Store) -> None:
        for n in range(1, 20):
            await add(store, item())
            assert (await store.read(INBOX, START, 100, EVERYTHING)).messages[-1].number == n

    async def test_trimming_raises_the_floor(self, store: Store) -> None:
        answers = await add(store, *(item(b"%d" % n) for n in range(4)))
        await store.trim(INBOX, answers[1].position.offset)
        assert await bodies(store) == [b"2", b"3"]
        assert await store.heads([INBOX]) == [Head(answers[3].position, 4, answers[1].position.offset, 2)]
        await store.trim(INBOX, answers[0].position.offset)
        assert (await store.heads([INBOX]))[0].floor == answers[1].position.offset

    async def test_the_floor_is_an_offset_that_was_removed(self, store: Store, clock: HandClock) -> None:
        (first,) = await add(store, item(b"1"))
        clock.turn(1)
        await add(store, item(b"2"))
        await store.trim(INBOX, first.position.offset + 5)
        assert (await store.heads([INBOX]))[0].floor == first.position.offset

    async def test_a_log_trimmed_to_nothing_goes_on_counting(self, store: Store, clock: HandClock) -> None:
        *_, last = await add(store, item(), item())
        await store.trim(INBOX, last.position.offset + 100)
        assert await store.heads([INBOX]) == [Head(last.position, 2, last.position.offset, 2)]
        clock.set_back(3600)
        (after,) = await add(store, item(b"3"))
        assert after == Appended(Position(last.position.epoch, last.position.offset + 1), last.position.offset, 3)
        assert await bodies(store) == [b"3"]

    # ── sweep ─────────────────────────────────────────────────────────────────────────────────────────

    async def test_what_is_past_retention_goes(self, store: Store, clock: HandClock) -> None:
        kept = Retention(seconds=100, confirmed_seconds=10)
        await add(store, item(b"old", retention=kept), item(b"old", retention=kept))
        clock.turn(60)
        await add(store, item(b"young", retention=kept))
        assert await swept(store) == 0
        clock.turn(41)
        assert await swept(store) == 2
        assert await bodies(store) == [b"young"]
        assert (await store.heads([INBOX]))[0].floor_number == 2

    async def test_what_is_confirmed_goes_sooner(self, store: Store, clock: HandClock) -> None:
        kept = Retention(seconds=100, confirmed_seconds=10)
        first, _ = await add(store, item(b"1", retention=kept), item(b"2", retention=kept))
        await store.cursor(INBOX, SHARED)
        await store.confirm([Confirm(INBOX, SHARED, first.position, 1)])
        clock.turn(5)
        assert await swept(store) == 0
        clock.turn(6)
        assert await swept(store) == 1
        assert await bodies(store) == [b"2"]

    async def test_what_a_device_lacks_stays(self, store: Store, clock: HandClock) -> None:
        kept = Retention(seconds=100, confirmed_seconds=10)
        (first,) = await add(store, item(retention=kept))
        await store.cursor(INBOX, SHARED)
        await store.cursor(INBOX, "phone")
        await store.confirm([Confirm(INBOX, SHARED, first.position, 1)])
        clock.turn(20)
        assert await swept(store) == 0
        await store.confirm([Confirm(INBOX, "phone", first.position, 1)])
        assert await swept(store) == 1

    async def test_without_an_owner_nothing_is_confirmed(self, store: Store, clock: HandClock) -> None:
        await add(store, item(retention=Retention(seconds=100, confirmed_seconds=0)))
        clock.turn(50)
        assert await swept(store) == 0

    async def test_a_log_s_retention_is_that_of_its_last_item(self, store: Store, clock: HandClock) -> None:
        await add(store, item(retention=Retention(seconds=100, confirmed_seconds=10)), item(retention=KEPT))
        clock.turn(200)
        assert await swept(store) == 0

    async def test_sweeping_looks_at_every_log(self, store: Store, clock: HandClock) -> None:
        kept = Retention(seconds=100, confirmed_seconds=10)
        logs = [LogKey(UserName(f"user-{n}"), "/queue/inbox") for n in range(300)]
        await add(store, *(item(log=log, retention=kept) for log in logs for _ in range(3)))
        clock.turn(101)
        assert await swept(store) == 900
        assert {head.floor_number for head in await store.heads(logs)} == {3}


@asynchronous
class DurableLogStoreContract(StoreFixtures):
    """What a durable engine promises across a restart. `make` opens the same data again."""

    async def test_what_was_appended_is_there_again(self, make: Make, clock: HandClock) -> None:
        batch = [item(b"%d" % n, headers={"n": str(n)}, live=n == 1) for n in range(3)]
        async with make(clock) as store:
            await add(store, *batch)
            before = await store.read(INBOX, START, 10, EVERYTHING)
        async with make(clock) as store:
            assert await store.read(INBOX, START, 10, EVERYTHING) == before
            (at,) = await add(store, item(b"3"))
            assert (at.previous, at.number) == (before.head.last.offset, 4)
            assert at.position.epoch == before.head.last.epoch

    async def test_offsets_are_not_used_again(self, make: Make, clock: HandClock) -> None:
        async with make(clock) as store:
            *_, last = await add(store, item(), item())
            await store.trim(INBOX, last.position.offset)
        clock.set_back(3600)
        async with make(clock) as store:
            assert await store.heads([INBOX]) == [Head(last.position, 2, last.position.offset, 2)]
            (at,) = await add(store, item())
            assert (at.position.offset, at.number) == (last.position.offset + 1, 3)

    async def test_keys_are_remembered(self, make: Make, clock: HandClock) -> None:
        async with make(clock) as store:
            (first,) = await add(store, item(b"a", key="k"))
        async with make(clock) as store:
            (again,) = await add(store, item(b"a", key="k"))
            assert again == Appended(first.position, 0, 1, duplicate=True)
            (outcome,) = await store.append([item(b"b", key="k")])
            assert isinstance(outcome, KeyReused)

    async def test_bounds_still_hold(self, make: Make, clock: HandClock) -> None:
        async with make(clock) as store:
            first, *_ = await add(store, *(item(retention=SMALL) for _ in range(3)))
            await store.cursor(INBOX, SHARED)
            await store.confirm([Confirm(INBOX, SHARED, first.position, 1)])
        async with make(clock) as store:
            outcomes = await store.append([item(retention=SMALL), item(retention=SMALL)])
            assert [type(outcome) for outcome in outcomes] == [Appended, MailboxFull]

    async def test_retention_is_remembered(self, make: Make, clock: HandClock) -> None:
        async with make(clock) as store:
            await add(store, item(retention=Retention(seconds=100, confirmed_seconds=10)))
        clock.turn(101)
        async with make(clock) as store:
            assert await swept(store) == 1

    async def test_what_was_accepted_is_finished_at_the_close(self, make: Make, clock: HandClock) -> None:
        async with make(clock) as store:
            waiting = [asyncio.ensure_future(store.append([item(b"%d" % n)])) for n in range(100)]  # noqa: TID251
            await asyncio.sleep(0)
        await asyncio.gather(*waiting)
        async with make(clock) as store:
            assert await bodies(store) == [b"%d" % n for n in range(100)]
