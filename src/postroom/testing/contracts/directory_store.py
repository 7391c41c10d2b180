"""What every store of the directory must do. Subclass it, and give it a fixture `make`."""

# ruff: noqa: D102 (a test says its promise in its name)

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import pytest
import pytest_asyncio

from postroom.errors import LeaseLost, LeaseTaken
from postroom.identity import NodeId, UserName
from postroom.position import LogKey
from postroom.store.base import DirectoryStore, Store
from postroom.testing.contracts.log_store import HISTORY, HandClock, add, everything, item
from postroom.testing.contracts.marks import asynchronous

ALICE, BOB, CAROL = UserName("alice"), UserName("bob"), UserName("carol")
ONE, TWO = NodeId("one"), NodeId("two")
SECONDS = 10.0


class Directing(Store, DirectoryStore, Protocol):
    """An engine that keeps logs and the directory."""


MakeDirecting = Callable[[HandClock], Directing]
"""Makes an engine, not yet open."""


class DirectoryFixtures:
    """The fixtures of the directory's contracts. `make` is the engine's own."""

    @pytest.fixture
    def clock(self) -> HandClock:
        """The time."""
        return HandClock()

    @pytest.fixture
    def make(self) -> MakeDirecting:
        """Give the kit your engine: override this."""
        pytest.fail("override the fixture `make`: it returns a function from a clock to an engine")

    @pytest_asyncio.fixture
    async def store(self, make: MakeDirecting, clock: HandClock) -> AsyncIterator[Directing]:
        """One open engine."""
        async with make(clock) as opened:
            yield opened


@asynchronous
class DirectoryStoreContract(DirectoryFixtures):
    """The promises of `postroom.store.base.DirectoryStore`, and of `listed` in `Appended`."""

    # ── leases ────────────────────────────────────────────────────────────────────────────────────────

    async def test_each_start_is_a_new_incarnation(self, store: Directing) -> None:
        leases = [await store.join(node, SECONDS) for node in (ONE, TWO, ONE)]
        assert [lease.node for lease in leases] == [ONE, TWO, ONE]
        assert leases[0].incarnation < leases[1].incarnation < leases[2].incarnation

    async def test_a_renewal_tells_all_that_live(self, store: Directing) -> None:
        one, two = await store.join(ONE, SECONDS), await store.join(TWO, SECONDS)
        assert {*await store.renew(one, SECONDS)} == {one, two}
        assert {*await store.renew(two, SECONDS)} == {one, two}

    async def test_a_lease_that_is_renewed_lives_on(self, store: Directing, clock: HandClock) -> None:
        one = await store.join(ONE, SECONDS)
        for _ in range(5):
            clock.turn(SECONDS - 1)
            assert [*await store.renew(one, SECONDS)] == [one]

    async def test_a_lease_ends_by_itself(self, store: Directing, clock: HandClock) -> None:
        one, two = await store.join(ONE, SECONDS), await store.join(TWO, 2 * SECONDS)
        clock.turn(SECONDS)
        assert [*await store.renew(two, SECONDS)] == [two]
        with pytest.raises(LeaseLost):
            await store.renew(one, SECONDS)

    async def test_a_lease_that_ended_does_not_come_back(self, store: Directing, clock: HandClock) -> None:
        one = await store.join(ONE, SECONDS)
        clock.turn(SECONDS + 1)
        for _ in range(2):
            with pytest.raises(LeaseLost):
                await store.renew(one, SECONDS)
        again = await store.join(ONE, SECONDS)
        assert again.incarnation > one.incarnation
        assert [*await store.renew(again, SECONDS)] == [again]

    async def test_another_incarnation_takes_the_name_over(self, store: Directing) -> None:
        old = await store.join(ONE, SECONDS)
        new = await store.join(ONE, SECONDS)
        with pytest.raises(LeaseTaken, match="one"):
            await store.renew(old, SECONDS)
        assert [*await store.renew(new, SECONDS)] == [new]

    async def test_who_was_taken_over_cannot_retire_the_other(self, store: Directing) -> None:
        old = await store.join(ONE, SECONDS)
        new = await store.join(ONE, SECONDS)
        await store.retire(old)
        assert [*await store.renew(new, SECONDS)] == [new]

    async def test_who_retires_is_gone_at_once(self, store: Directing) -> None:
        one, two = await store.join(ONE, SECONDS), await store.join(TWO, SECONDS)
        await store.retire(one)
        assert [*await store.renew(two, SECONDS)] == [two]
        with pytest.raises(LeaseLost):
            await store.renew(one, SECONDS)
        await store.retire(one)

    @pytest.mark.parametrize("name", ["a/b", "node 1", "nœud", "x:y", "#", "=", "{n}", "127.0.0.1:8080"])
    async def test_a_node_may_have_any_name(self, store: Directing, name: str) -> None:
        lease = await store.join(NodeId(name), SECONDS)
        assert [*await store.renew(lease, SECONDS)] == [lease]
        await store.enter(lease, [BOB])
        assert await store.locate([BOB]) == {BOB: (lease,)}

    async def test_nodes_that_join_at_once_do_not_share_an_incarnation(self, store: Directing) -> None:
        leases = await asyncio.gather(*(store.join(NodeId(f"node-{n}"), SECONDS) for n in range(20)))
        assert len({lease.incarnation for lease in leases}) == 20
        assert {*await store.renew(leases[0], SECONDS)} == {*leases}

    # ── entries ───────────────────────────────────────────────────────────────────────────────────────

    async def test_who_has_entered_is_found(self, store: Directing) -> None:
        one, two = await store.join(ONE, SECONDS), await store.join(TWO, SECONDS)
        await store.enter(one, [ALICE, BOB])
        await store.enter(two, [BOB])
        found = await store.locate([ALICE, BOB, CAROL])
        assert {user: {*leases} for user, leases in found.items()} == {ALICE: {one}, BOB: {one, two}, CAROL: set()}

    async def test_to_enter_again_is_to_enter_once(self, store: Directing) -> None:
        one = await store.join(ONE, SECONDS)
        await store.enter(one, [BOB])
        await store.enter(one, [BOB, BOB])
        assert [*(await store.locate([BOB]))[BOB]] == [one]
        await store.leave(one, [BOB])
        assert [*(await store.locate([BOB]))[BOB]] == []

    async def test_who_leaves_takes_nobody_along(self, store: Directing) -> None:
        one, two = await store.join(ONE, SECONDS), await store.join(TWO, SECONDS)
        for lease in (one, two):
            await store.enter(lease, [ALICE, BOB])
        await store.leave(one, [BOB])
        found = await store.locate([ALICE, BOB])
        assert {user: {*leases} for user, leases in found.items()} == {ALICE: {one, two}, BOB: {two}}
        await store.leave(one, [BOB, CAROL])
        assert [*(await store.locate([BOB]))[BOB]] == [two]

    async def test_an_old_incarnation_s_entry_is_another_one(self, store: Directing) -> None:
        old = await store.join(ONE, SECONDS)
        await store.enter(old, [BOB])
        new = await store.join(ONE, SECONDS)
        await store.enter(new, [BOB])
        assert {*(await store.locate([BOB]))[BOB]} == {old, new}
        await store.leave(old, [BOB])
        assert [*(await store.locate([BOB]))[BOB]] == [new]

    async def test_what_a_dead_node_entered_can_be_taken_away(self, store: Directing, clock: HandClock) -> None:
        one = await store.join(ONE, SECONDS)
        await store.enter(one, [BOB])
        clock.turn(SECONDS + 1)
        await store.leave(one, [BOB])
        assert [*(await store.locate([BOB]))[BOB]] == []

    async def test_a_sweep_takes_no_live_node_s_entries(self, store: Directing, clock: HandClock) -> None:
        one = await store.join(ONE, SECONDS)
        await store.enter(one, [ALICE, BOB])
        clock.turn(SECONDS / 2)
        await store.sweep()
        found = await store.locate([ALICE, BOB])
        assert {user: [*leases] for user, leases in found.items()} == {ALICE: [one], BOB: [one]}

    async def test_nobody_and_many_may_enter(self, store: Directing) -> None:
        one = await store.join(ONE, SECONDS)
        await store.enter(one, [])
        await store.leave(one, [])
        assert await store.locate([]) == {}
        crowd = [UserName(f"user-{n}") for n in range(2000)]
        await store.enter(one, crowd)
        assert {*map(tuple, (await store.locate(crowd)).values())} == {(one,)}
        await store.leave(one, crowd[:1000])
        found = await store.locate(crowd)
        assert [len(found[user]) for user in crowd] == [0] * 1000 + [1] * 1000

    async def test_users_may_have_odd_names(self, store: Directing) -> None:
        one = await store.join(ONE, SECONDS)
        names = [UserName(name) for name in ("a b", "ä", "用户", "a:b", "a/b", "{a}", "}{", "a%7D", "*", "a\nb", "\\")]
        for name in names:
            assert [*(await store.locate([name]))[name]] == []
            await store.enter(one, [name])
        assert {*map(tuple, (await store.locate(names)).values())} == {(one,)}

    # ── listed ────────────────────────────────────────────────────────────────────────────────────────

    async def test_an_append_tells_who_is_listed(self, store: Directing) -> None:
        one, two = await store.join(ONE, SECONDS), await store.join(TWO, SECONDS)
        (nobody,) = await add(store, item())
        assert ([*nobody.listed], nobody.live) == ([], False)
        for lease in (one, two):
            await store.enter(lease, [BOB])
        first, other = await add(store, item(), item(log=LogKey(ALICE, "/queue/inbox")))
        assert ({*first.listed}, first.live) == ({one, two}, True)
        assert ([*other.listed], other.live) == ([], False)
        await store.leave(one, [BOB])
        (last,) = await add(store, item())
        assert [*last.listed] == [two]

    async def test_a_topic_s_log_lists_nobody(self, store: Directing) -> None:
        one = await store.join(ONE, SECONDS)
        await store.enter(one, [UserName(HISTORY.name), BOB])
        (at,) = await add(store, item(log=HISTORY))
        assert ([*at.listed], at.live) == ([], False)

    async def test_what_was_stored_while_somebody_was_listed_is_live(self, store: Directing) -> None:
        one = await store.join(ONE, SECONDS)
        await add(store, item())
        await store.enter(one, [BOB])
        await add(store, item())
        assert [each.live for each in await everything(store)] == [False, True]

    async def test_a_repeated_key_lists_nobody(self, store: Directing) -> None:
        one = await store.join(ONE, SECONDS)
        await store.enter(one, [BOB])
        await add(store, item(key="k"))
        (again,) = await add(store, item(key="k"))
        assert (again.duplicate, [*again.listed]) == (True, [])
