"""What every store on a server must do when it, or the way to it, is hurt.

Subclass it, and give it a fixture `make`; `outage` and `linked` as well, if you can.
"""

# ruff: noqa: D102 (a test says its promise in its name)

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

import pytest

from postroom.errors import OutcomeUnknown, StoreUnavailable
from postroom.identity import NodeId, UserName
from postroom.store.base import SHARED, Append, Appended, Confirm, Store
from postroom.testing.contracts.directory_store import DirectoryFixtures, MakeDirecting
from postroom.testing.contracts.faults import SECONDS, Link, Outage, given
from postroom.testing.contracts.log_store import INBOX, HandClock, Make, StoreFixtures, add, bodies, item, stored
from postroom.testing.contracts.marks import asynchronous

T = TypeVar("T")

Linked = tuple[Make, Link]
"""Makes an engine over a link of its own; what it stores, those of `make` see."""

LinkedDirecting = tuple[MakeDirecting, Link]
"""The same for engines that keep the directory."""

CONSUMER = UserName("bob")


async def insist(call: Callable[[], Awaitable[T]]) -> T:
    """What `call` returns, once the store does it."""
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                return await call()
            except StoreUnavailable:
                await asyncio.sleep(0.05)


async def put(store: Store, one: Append) -> Appended:
    """Append it, as often as it takes."""
    (answer,) = await insist(lambda: store.append([one]))
    return stored(answer)


async def hurt_at(moment: int, hurt: Callable[[], None], call: Callable[[], Awaitable[T]]) -> T:
    """What `call` returns, hurt once: at its start, or some half milliseconds later. So it can come to an end, however
    long it takes to connect again."""

    async def wait() -> T:
        return await call()

    task = asyncio.get_running_loop().create_task(wait())
    await asyncio.sleep(0.0005 * (moment % 9))
    await asyncio.to_thread(hurt)
    return await task


@asynchronous
class StoreFaultContract(StoreFixtures):
    """What `LogStore` and `CursorStore` promise holds while the server restarts, and over a bad network."""

    @pytest.fixture
    def outage(self) -> Outage | None:
        """What hurts the server of `make`; None: the kit leaves that out."""
        return None

    @pytest.fixture
    def linked(self) -> Linked | None:
        """An engine whose connections can be hurt; None: the kit leaves that out."""
        return None

    async def test_what_was_accepted_is_there_after_a_restart_of_the_server(
        self, make: Make, clock: HandClock, outage: Outage | None
    ) -> None:
        hurt = given(outage)
        async with make(clock) as store:
            if not store.durable:
                pytest.skip("the engine says that it is not durable")
            first, *_ = [await put(store, item(b"%d" % n, key=f"key {n}")) for n in range(5)]
            await store.cursor(INBOX, SHARED)
            await store.confirm([Confirm(INBOX, SHARED, first.position, first.number)])
            await asyncio.to_thread(hurt.restart)
            again = await put(store, item(b"4", key="key 4"))
            last = await put(store, item(b"5"))
            assert (again.duplicate, again.position < last.position) == (True, True)
            assert await bodies(store) == [b"%d" % n for n in range(6)]
            assert (await store.cursor(INBOX, SHARED)).confirmed == first.position

    async def test_what_is_stored_during_restarts_is_stored_once_and_in_order(
        self, make: Make, clock: HandClock, outage: Outage | None
    ) -> None:
        hurt = given(outage)
        async with make(clock) as store:
            if not store.durable:
                pytest.skip("the engine says that it is not durable")
            restarting = asyncio.get_running_loop().run_in_executor(None, hurt.restart)
            numbers = 0
            while numbers < 20 or not restarting.done():
                await put(store, item(b"%d" % numbers, key=f"key {numbers}"))
                numbers += 1
            await restarting
            assert await bodies(store) == [b"%d" % n for n in range(numbers)]

    async def test_a_server_that_does_not_answer_is_given_up(
        self, make: Make, clock: HandClock, outage: Outage | None
    ) -> None:
        hurt = given(outage)
        async with make(clock) as store:
            await put(store, item(b"1"))
            await asyncio.to_thread(hurt.pause)
            try:
                with pytest.raises(StoreUnavailable):
                    async with asyncio.timeout(SECONDS):
                        await store.append([item(b"2", key="two")])
            finally:
                await asyncio.to_thread(hurt.resume)
            await put(store, item(b"2", key="two"))
            assert await bodies(store) == [b"1", b"2"]

    async def test_what_is_stored_while_connections_are_cut_is_stored_once_and_in_order(
        self, make: Make, clock: HandClock, linked: Linked | None
    ) -> None:
        make_linked, link = given(linked)
        async with make(clock) as other, make_linked(clock) as store:
            for n in range(40):
                await hurt_at(n, link.cut, partial(put, store, item(b"%d" % n, key=f"key {n}")))
            assert await bodies(other) == [b"%d" % n for n in range(40)]

    async def test_what_fails_is_not_stored_or_unknown(
        self, make: Make, clock: HandClock, linked: Linked | None
    ) -> None:
        make_linked, link = given(linked)
        accepted, nothing = set[bytes](), set[bytes]()
        async with make(clock) as other, make_linked(clock) as store:
            for n in range(40):
                body = b"%d" % n
                try:
                    await hurt_at(n, link.cut, partial(add, store, item(body)))
                    accepted.add(body)
                except OutcomeUnknown:
                    pass
                except StoreUnavailable:
                    nothing.add(body)
            found = await bodies(other)
        assert len({*found}) == len(found)
        assert accepted <= {*found}
        assert not nothing & {*found}

    async def test_an_append_whose_answer_is_lost_is_stored_once(
        self, make: Make, clock: HandClock, linked: Linked | None
    ) -> None:
        make_linked, link = given(linked)
        async with make(clock) as other, make_linked(clock) as store:
            await put(store, item(b"1"))
            await asyncio.to_thread(link.mute)
            asked = asyncio.get_running_loop().create_task(store.append([item(b"2")]))
            async with asyncio.timeout(SECONDS):
                while await bodies(other) != [b"1", b"2"]:
                    await asyncio.sleep(0.01)
            await asyncio.to_thread(link.cut)
            await asyncio.to_thread(link.heal)
            with suppress(OutcomeUnknown):
                stored((await asked)[0])
            await put(store, item(b"3"))
            assert await bodies(other) == [b"1", b"2", b"3"]

    async def test_a_connection_that_swallows_everything_is_given_up(
        self, make: Make, clock: HandClock, linked: Linked | None
    ) -> None:
        make_linked, link = given(linked)
        async with make(clock) as other, make_linked(clock) as store:
            await put(store, item(b"1"))
            await asyncio.to_thread(link.blackhole)
            with pytest.raises(StoreUnavailable):
                async with asyncio.timeout(SECONDS):
                    await store.append([item(b"2", key="two")])
            await asyncio.to_thread(link.cut)
            await asyncio.to_thread(link.heal)
            await put(store, item(b"2", key="two"))
            assert await bodies(other) == [b"1", b"2"]

    async def test_it_comes_back_once_the_server_can_be_reached(
        self, make: Make, clock: HandClock, linked: Linked | None
    ) -> None:
        make_linked, link = given(linked)
        async with make(clock) as other, make_linked(clock) as store:
            await put(store, item(b"1"))
            await asyncio.to_thread(link.refuse)
            with pytest.raises(StoreUnavailable):
                async with asyncio.timeout(SECONDS):
                    await store.heads([INBOX])
            with pytest.raises(StoreUnavailable):
                async with asyncio.timeout(SECONDS):
                    await store.append([item(b"never")])
            await asyncio.to_thread(link.heal)
            await put(store, item(b"2"))
            assert await bodies(store) == await bodies(other) == [b"1", b"2"]

    async def test_connections_that_overtake_one_another_keep_the_order(
        self, make: Make, clock: HandClock, linked: Linked | None
    ) -> None:
        make_linked, link = given(linked)
        async with make(clock) as other, make_linked(clock) as store:
            await put(store, item(b"0"))
            await asyncio.to_thread(link.scatter, 0.03)
            answers = await asyncio.gather(*(store.append([item(b"%d" % n)]) for n in range(1, 30)))
            assert await bodies(other) == [b"%d" % n for n in range(30)]
            offsets = [stored(answer).position.offset for (answer,) in answers]
            assert offsets == sorted({*offsets})

    async def test_a_cursor_never_moves_back_over_a_bad_network(
        self, make: Make, clock: HandClock, linked: Linked | None
    ) -> None:
        make_linked, link = given(linked)
        async with make(clock) as other, make_linked(clock) as store:
            told = [await put(store, item(b"%d" % n)) for n in range(20)]
            await insist(lambda: store.cursor(INBOX, SHARED))
            highest = 0
            for n, each in enumerate(told):
                confirm = partial(store.confirm, [Confirm(INBOX, SHARED, each.position, each.number)])
                await hurt_at(n, link.cut, partial(insist, confirm))
                seen = (await other.cursor(INBOX, SHARED)).number
                assert highest <= each.number <= seen
                highest = seen


@asynchronous
class DirectoryFaultContract(DirectoryFixtures):
    """What `DirectoryStore` promises holds over a bad network."""

    @pytest.fixture
    def linked(self) -> LinkedDirecting | None:
        """An engine whose connections can be hurt; None: the kit leaves that out."""
        return None

    async def test_a_lease_lives_while_connections_are_cut(
        self, make: MakeDirecting, clock: HandClock, linked: LinkedDirecting | None
    ) -> None:
        make_linked, link = given(linked)
        async with make(clock) as other, make_linked(clock) as store:
            lease = await store.join(NodeId("one"), 10)
            for n in range(20):
                live = await hurt_at(n, link.cut, lambda: insist(lambda: store.renew(lease, 10)))
                assert [*live] == [lease]
                clock.turn(9)
            assert [*await other.renew(lease, 10)] == [lease]

    async def test_the_last_word_counts_while_connections_are_cut(
        self, make: MakeDirecting, clock: HandClock, linked: LinkedDirecting | None
    ) -> None:
        make_linked, link = given(linked)
        async with make(clock) as other, make_linked(clock) as store:
            lease = await store.join(NodeId("one"), 10)
            for n in range(20):
                await hurt_at(n, link.cut, lambda: insist(lambda: store.enter(lease, [CONSUMER])))
                assert [*(await other.locate([CONSUMER]))[CONSUMER]] == [lease]
                await hurt_at(n, link.cut, lambda: insist(lambda: store.leave(lease, [CONSUMER])))
                assert [*(await other.locate([CONSUMER]))[CONSUMER]] == []
