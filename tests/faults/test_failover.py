"""The store fails over to a replica that lacks its last writes: what is left arrives, and what comes later."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.cluster import Nodes
from tests.support.faults import CONFIG, LONG, ROUTINGS, SEED, SIZE, Tell, judge, load, moments
from tests.support.history import FailedOver, Fault, Gone, Lagging
from tests.support.load import Run
from tests.support.topologies import Cluster, Sentinels
from tests.support.valkey import Valkey

from postroom.identity import UserName
from postroom.position import LogKey
from postroom.store.redis import RedisStore
from postroom.testing.contracts.log_store import everything

pytestmark = [pytest.mark.fault, pytest.mark.timeout(SIZE.seconds + 60)]

LAG = 60
"""How many receipts clients get for what no replica has, and so is lost."""

FAILURES = 4 if LONG else 1

Servers = Sentinels | Cluster


@pytest.fixture(params=[Sentinels, Cluster], ids=["sentinel", "cluster"])
def servers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Servers]:
    """Servers that fail over."""
    with request.param(tmp_path / "servers") as started:
        yield started


async def stored(url: str, run: Run) -> set[tuple[str, int, int, str]]:
    """All that the mailboxes of the run hold: receiver, epoch, offset, key."""
    found: set[tuple[str, int, int, str]] = set()
    async with RedisStore(url) as store:
        for user in range(run.users):
            for each in await everything(store, LogKey(UserName(f"user-{user}"), "/queue/inbox")):
                at = each.position
                found.add((f"user-{user}", at.epoch, at.offset, each.message.headers["key"]))
    return found


async def fail_over_without_the_tail(run: Run, servers: Servers) -> None:
    """Let a primary go on without its replica for a while, kill it, and note what only it had."""
    async for _ in moments(run, FAILURES):
        if run.receipts + 2 * LAG > run.senders * run.messages:
            return  # the last fail-over took so long that there is little left to lose
        primary = servers.primary_of(run.random.choice(["postroom:nodes", *(f"{{u:user-{n}}}" for n in range(9))]))
        run.history.note(Lagging())
        await asyncio.sleep(0.3)  # what was confirmed before is stored within 50 ms
        await asyncio.to_thread(primary.lose_replicas)
        await run.reached(run.receipts + LAG).wait()
        await run.flying()
        run.history.note(Fault("a primary dies whose replica is behind"))
        primary.kill()
        run.heal()
        await asyncio.to_thread(servers.wait_for_failover, primary)
        run.history.note(FailedOver())
        lost = await stored_by_the_dead(primary, run) - await stored(f"{servers.url}?timeout=20", run)
        assert lost, "the replica had everything"
        for key in sorted({key for *_, key in lost}):
            run.history.note(Gone(key))
        await asyncio.to_thread(primary.start)
        await asyncio.to_thread(servers.wait_ready)


async def stored_by_the_dead(primary: Valkey, run: Run) -> set[tuple[str, int, int, str]]:
    copy = primary.dead_copy()
    try:
        await asyncio.to_thread(copy.start)
        return await stored(copy.url, run)
    finally:
        copy.close()


@pytest.mark.parametrize("seed", range(SEED, SEED + (3 if LONG else 1)))
@pytest.mark.parametrize("routing", ROUTINGS if LONG else ROUTINGS[:1])
async def test_what_a_fail_over_kept_arrives_and_no_position_is_used_twice(
    make_nodes: Callable[..., Nodes],
    servers: Servers,
    tmp_path: Path,
    routing: str,
    seed: int,
    record_property: Tell,
) -> None:
    nodes = make_nodes(servers.url, routing=routing, config=CONFIG)
    run = load(nodes, seed)
    await run.play(fail_over_without_the_tail(run, servers), within=SIZE.seconds)
    judge(run, nodes, tmp_path, record_property, faults=1)
