"""What every store of cursors must do. Subclass it, and give it a fixture `make`."""

# ruff: noqa: D102 (a test says its promise in its name)

import asyncio

from postroom.position import START, Position
from postroom.store.base import DEVICE_SECONDS, SHARED, Append, Appended, Confirm, Cursor, Store
from postroom.testing.contracts.log_store import (
    INBOX,
    OUTBOX,
    RING,
    HandClock,
    Make,
    StoreFixtures,
    add,
    item,
    swept,
)
from postroom.testing.contracts.marks import asynchronous

PHONE = "phone"


def some(count: int) -> list[Append]:
    """So many messages for the inbox."""
    return [item(b"%d" % n) for n in range(count)]


def up_to(at: Appended, owner: str = SHARED) -> Confirm:
    """`owner` has everything up to `at`."""
    return Confirm(INBOX, owner, at.position, at.number)


@asynchronous
class CursorStoreContract(StoreFixtures):
    """The promises of `postroom.store.base.CursorStore`."""

    async def test_the_shared_cursor_begins_at_the_start(self, store: Store) -> None:
        await add(store, *some(3))
        assert await store.cursor(INBOX, SHARED) == Cursor(START, 0, 0)

    async def test_the_shared_cursor_begins_there_though_messages_were_dropped(self, store: Store) -> None:
        await add(store, *(item(retention=RING) for _ in range(5)))
        assert await store.cursor(INBOX, SHARED) == Cursor(START, 0, 0)

    async def test_a_device_begins_with_all_that_the_log_holds(self, store: Store) -> None:
        answers = await add(store, *(item(retention=RING) for _ in range(5)))
        cursor = await store.cursor(INBOX, PHONE)
        assert (cursor.confirmed.offset, cursor.number) == (answers[1].position.offset, 2)
        assert cursor.confirmed < answers[2].position
        assert cursor.attempted == 0

    async def test_a_cursor_of_an_unknown_log_begins_at_the_start(self, store: Store) -> None:
        assert await store.cursor(INBOX, SHARED) == Cursor(START, 0, 0)
        assert await store.cursor(INBOX, PHONE) == Cursor(START, 0, 0)

    async def test_a_confirm_moves_the_cursor(self, store: Store) -> None:
        first, second = await add(store, *some(2))
        await store.cursor(INBOX, SHARED)
        await store.confirm([up_to(first)])
        assert await store.cursor(INBOX, SHARED) == Cursor(first.position, 1, 0)
        await store.confirm([up_to(second)])
        assert await store.cursor(INBOX, SHARED) == Cursor(second.position, 2, 0)

    async def test_a_cursor_never_moves_back(self, store: Store) -> None:
        first, second, third = await add(store, *some(3))
        await store.confirm([up_to(second), up_to(first)])
        await store.confirm([up_to(first)])
        assert (await store.cursor(INBOX, SHARED)).confirmed == second.position
        await asyncio.gather(*(store.confirm([up_to(at)]) for at in (first, third, second)))
        assert await store.cursor(INBOX, SHARED) == Cursor(third.position, 3, 0)

    async def test_a_batch_confirms_for_many_owners_and_logs(self, store: Store) -> None:
        first, second = await add(store, *some(2))
        (other,) = await add(store, item(log=OUTBOX))
        elsewhere = Confirm(OUTBOX, SHARED, other.position, 1)
        await store.confirm([up_to(first), up_to(second, PHONE), elsewhere, up_to(second)])
        assert (await store.cursor(INBOX, SHARED)).number == 2
        assert (await store.cursor(INBOX, PHONE)).number == 2
        assert (await store.cursor(OUTBOX, SHARED)).confirmed == other.position

    async def test_an_empty_batch_is_nothing(self, store: Store) -> None:
        await store.confirm([])

    async def test_nothing_is_confirmed_beyond_the_head(self, store: Store) -> None:
        (first,) = await add(store, *some(1))
        far = Position(first.position.epoch, first.position.offset + 10**9)
        await store.confirm([Confirm(INBOX, SHARED, far, 99)])
        assert await store.cursor(INBOX, SHARED) == Cursor(first.position, 1, 0)

    async def test_a_cursor_may_be_above_all_that_is_left(self, store: Store) -> None:
        *_, last = await add(store, *some(3))
        await store.confirm([up_to(last)])
        await store.trim(INBOX, last.position.offset)
        assert await store.cursor(INBOX, SHARED) == Cursor(last.position, 3, 0)

    async def test_owners_do_not_share_a_cursor(self, store: Store) -> None:
        (first,) = await add(store, *some(1))
        for owner in (SHARED, PHONE, "tablet"):
            await store.cursor(INBOX, owner)
        await store.confirm([up_to(first, PHONE)])
        assert (await store.cursor(INBOX, PHONE)).number == 1
        assert (await store.cursor(INBOX, "tablet")).number == 0
        assert (await store.cursor(INBOX, SHARED)).number == 0

    async def test_the_attempted_watermark_only_rises(self, store: Store) -> None:
        first, second = await add(store, *some(2))
        await store.cursor(INBOX, SHARED)
        await store.attempt(INBOX, SHARED, second.position.offset)
        await store.attempt(INBOX, SHARED, first.position.offset)
        assert await store.cursor(INBOX, SHARED) == Cursor(START, 0, second.position.offset)
        await store.confirm([up_to(first)])
        assert await store.cursor(INBOX, SHARED) == Cursor(first.position, 1, second.position.offset)

    async def test_a_device_that_was_not_seen_for_long_is_forgotten(self, store: Store, clock: HandClock) -> None:
        (first,) = await add(store, *some(1))
        for owner in (SHARED, PHONE):
            await store.cursor(INBOX, owner)
            await store.attempt(INBOX, owner, first.position.offset)
        clock.turn(DEVICE_SECONDS - 1)
        await swept(store)
        assert (await store.cursor(INBOX, PHONE)).attempted == first.position.offset
        clock.turn(DEVICE_SECONDS + 1)
        await swept(store)
        assert (await store.cursor(INBOX, PHONE)).attempted == 0
        assert (await store.cursor(INBOX, SHARED)).attempted == first.position.offset

    # ── leases ────────────────────────────────────────────────────────────────────────────────────────

    async def test_a_lease_has_one_holder(self, store: Store) -> None:
        assert await store.lease(INBOX, SHARED, "one", 10)
        assert not await store.lease(INBOX, SHARED, "two", 10)
        assert await store.lease(INBOX, PHONE, "two", 10)
        assert await store.lease(OUTBOX, SHARED, "two", 10)

    async def test_its_holder_may_take_it_again(self, store: Store, clock: HandClock) -> None:
        assert await store.lease(INBOX, SHARED, "one", 10)
        clock.turn(8)
        assert await store.lease(INBOX, SHARED, "one", 10)
        clock.turn(8)
        assert not await store.lease(INBOX, SHARED, "two", 10)

    async def test_a_lease_ends_by_itself(self, store: Store, clock: HandClock) -> None:
        assert await store.lease(INBOX, SHARED, "one", 10)
        clock.turn(10)
        assert await store.lease(INBOX, SHARED, "two", 10)

    async def test_a_lease_given_back_is_free(self, store: Store) -> None:
        assert await store.lease(INBOX, SHARED, "one", 10)
        await store.release(INBOX, SHARED, "one")
        assert await store.lease(INBOX, SHARED, "two", 10)

    async def test_only_its_holder_gives_a_lease_back(self, store: Store, clock: HandClock) -> None:
        assert await store.lease(INBOX, SHARED, "one", 10)
        await store.release(INBOX, SHARED, "two")
        assert not await store.lease(INBOX, SHARED, "two", 10)
        clock.turn(11)
        assert await store.lease(INBOX, SHARED, "two", 10)
        await store.release(INBOX, SHARED, "one")
        assert not await store.lease(INBOX, SHARED, "one", 10)


@asynchronous
class DurableCursorStoreContract(StoreFixtures):
    """What a durable engine promises of cursors across a restart."""

    async def test_cursors_are_there_again(self, make: Make, clock: HandClock) -> None:
        async with make(clock) as store:
            first, second = await add(store, *some(2))
            await store.cursor(INBOX, PHONE)
            await store.confirm([up_to(first)])
            await store.attempt(INBOX, SHARED, second.position.offset)
        async with make(clock) as store:
            assert await store.cursor(INBOX, SHARED) == Cursor(first.position, 1, second.position.offset)
            await store.confirm([up_to(second, PHONE), up_to(first)])
        async with make(clock) as store:
            assert await store.cursor(INBOX, PHONE) == Cursor(second.position, 2, 0)

    async def test_a_known_owner_stays_known(self, make: Make, clock: HandClock) -> None:
        async with make(clock) as store:
            assert await store.cursor(INBOX, PHONE) == Cursor(START, 0, 0)
        async with make(clock) as store:
            (first,) = await add(store, *some(1))
            await store.trim(INBOX, first.position.offset)
            assert await store.cursor(INBOX, PHONE) == Cursor(START, 0, 0)
