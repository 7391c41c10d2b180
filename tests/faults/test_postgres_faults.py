"""Two nodes behind nginx on one PostgreSQL, hurt under load: nothing receipted is lost, nothing twice unmarked."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from tests.support.cluster import Nodes
from tests.support.faults import CONFIG, LEASE, SEED, SIZE, Round, Tell, judge, load, moments, rounds
from tests.support.history import Fault
from tests.support.load import Run
from tests.support.postgres import Postgres
from tests.support.proxy import Proxy

pytestmark = [pytest.mark.fault, pytest.mark.timeout(SIZE.seconds + 60)]


async def kill_a_node(run: Run, nodes: Nodes, postgres: Postgres) -> None:
    async for _ in moments(run):
        run.history.note(Fault("kill -9 of a node"))
        node = run.random.choice(nodes.nodes)
        node.kill()
        run.heal()
        await asyncio.sleep(run.random.uniform(0.2, 1.5))
        await asyncio.to_thread(node.start)


async def restart_postgres(run: Run, nodes: Nodes, postgres: Postgres) -> None:
    async for _ in moments(run):
        run.history.note(Fault("kill -9 of PostgreSQL"))
        await asyncio.to_thread(postgres.kill)
        await asyncio.sleep(run.random.uniform(0.1, LEASE))
        await asyncio.to_thread(postgres.start)
        run.heal()


async def pause_postgres(run: Run, nodes: Nodes, postgres: Postgres) -> None:
    async for _ in moments(run):
        run.history.note(Fault("PostgreSQL is paused"))
        postgres.pause()
        await asyncio.sleep(run.random.choice([0.5, LEASE * 1.5, 7.0]))
        postgres.resume()
        run.heal()


@pytest.mark.parametrize("round", rounds([kill_a_node, restart_postgres, pause_postgres]), ids=str)
async def test_what_was_receipted_arrives(
    make_nodes: Callable[..., Nodes],
    own_postgres: Postgres,
    fresh_url: str,
    tmp_path: Path,
    round: Round,
    record_property: Tell,
) -> None:
    # What hurts PostgreSQL hurts its LISTEN and NOTIFY too.
    carrier = fresh_url if round.hurt is kill_a_node else ""
    nodes = make_nodes(own_postgres.url(), routing=round.routing, config=CONFIG, backplane=carrier)
    run = load(nodes, round.seed)
    await run.play(round.hurt(run, nodes, own_postgres), within=SIZE.seconds)
    judge(run, nodes, tmp_path, record_property, faults=1)


@pytest.fixture
def ways(own_postgres: Postgres) -> Iterator[list[Proxy]]:
    """For each of two nodes its own way to PostgreSQL."""
    proxies = [Proxy(own_postgres.port, seed=SEED + n) for n in range(2)]
    for proxy in proxies:
        proxy.start()
    yield proxies
    for proxy in proxies:
        proxy.close()


async def cut_connections(run: Run, proxies: Sequence[Proxy]) -> None:
    async for _ in moments(run):
        run.history.note(Fault("connections to PostgreSQL are cut, again and again"))
        for _ in range(5):
            run.random.choice(proxies).cut()
            await asyncio.sleep(run.random.uniform(0.05, 0.3))
        run.heal()


@pytest.mark.parametrize("round", rounds([cut_connections]), ids=str)
async def test_what_was_receipted_arrives_over_a_bad_network(
    make_nodes: Callable[..., Nodes],
    own_postgres: Postgres,
    ways: list[Proxy],
    fresh_url: str,
    tmp_path: Path,
    round: Round,
    record_property: Tell,
) -> None:
    urls = [own_postgres.url(port=way.port, timeout="2") for way in ways]
    nodes = make_nodes(urls, routing=round.routing, config=CONFIG, backplane=fresh_url)
    run = load(nodes, round.seed)
    await run.play(round.hurt(run, ways), within=SIZE.seconds)
    judge(run, nodes, tmp_path, record_property, faults=1)
