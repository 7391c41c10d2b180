"""Two nodes behind nginx on one PostgreSQL, hurt under load: nothing receipted is lost, nothing twice unmarked."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.support.cluster import Nodes
from tests.support.faults import (
    CONFIG,
    SEED,
    SIZE,
    Round,
    Tell,
    cut_connections,
    judge,
    kill_a_node,
    load,
    pause_the_store,
    restart_the_store,
    rounds,
)
from tests.support.postgres import Postgres

from postroom.testing.proxy import Proxy

pytestmark = [pytest.mark.fault, pytest.mark.timeout(SIZE.seconds + 60)]


@pytest.mark.parametrize("round", rounds([kill_a_node, restart_the_store, pause_the_store]), ids=str)
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
    with ExitStack() as stack:
        target = ("127.0.0.1", own_postgres.port)
        yield [stack.enter_context(Proxy(target, seed=SEED + n)) for n in range(2)]


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
