"""Two nodes behind nginx over a Kafka whose topic is changed under load: nothing receipted is lost."""

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path

import pytest
from tests.support.cluster import Nodes
from tests.support.faults import CONFIG, LONG, SEED, SIZE, Tell, judge, light_load, moments, started
from tests.support.history import Fault
from tests.support.kafka import Kafka
from tests.support.kafka_admin import Operator, operating
from tests.support.kafka_proxy import RefusingProxy
from tests.support.valkey import Valkey

pytestmark = [pytest.mark.fault, pytest.mark.timeout(SIZE.seconds + 60)]

FAULTS = SIZE.faults if LONG else 1
OUT_OF_ORDER = 45
_names = itertools.count(1)

Hurt = Callable[[Operator, str, Sequence[RefusingProxy]], Coroutine[None, None, None]]


async def grow_the_topic(operator: Operator, topic: str, ways: Sequence[RefusingProxy]) -> None:
    await operator.grow(topic, await operator.partitions(topic) + 3)


async def delete_the_topic(operator: Operator, topic: str, ways: Sequence[RefusingProxy]) -> None:
    await operator.delete(topic)


async def let_expire_what_a_node_misses(operator: Operator, topic: str, ways: Sequence[RefusingProxy]) -> None:
    ways[0].refuse()
    await asyncio.sleep(1.0)
    await operator.empty(topic, await operator.partitions(topic))
    ways[0].heal()


async def refuse_publishes(operator: Operator, topic: str, ways: Sequence[RefusingProxy]) -> None:
    for way in ways:
        way.refuse_with(OUT_OF_ORDER, times=5)
        await asyncio.sleep(0.3)


IN_CI: Sequence[Hurt] = (delete_the_topic, let_expire_what_a_node_misses)
HURTS: Sequence[Hurt] = (*IN_CI, grow_the_topic, refuse_publishes)


@pytest.fixture
def ways(kafka: Kafka) -> Iterator[Sequence[RefusingProxy]]:
    """For each of two nodes its own way to the server."""
    with started([kafka.proxy(number, seed=SEED) for number in range(2)]) as proxies:
        yield proxies


@pytest.mark.parametrize("hurt", HURTS if LONG else IN_CI, ids=lambda each: each.__name__)
async def test_what_was_receipted_arrives(
    kafka: Kafka,
    ways: Sequence[RefusingProxy],  # before the nodes, so that these end first
    own_valkey: Valkey,
    make_nodes: Callable[..., Nodes],
    tmp_path: Path,
    record_property: Tell,
    hurt: Hurt,
) -> None:
    topic = f"hurt-{next(_names)}"
    carriers = [f"{kafka.url_at(way.port)}?prefix={topic}&timeout=2&partitions=3" for way in ways]
    nodes = make_nodes(own_valkey.url, backplane=carriers, config=CONFIG)
    run = light_load(nodes)
    async with operating(kafka) as operator:

        async def trouble() -> None:
            async for _ in moments(run, FAULTS):
                run.history.note(Fault(hurt.__name__))
                await hurt(operator, topic, ways)
                run.heal()

        await run.play(trouble(), within=SIZE.seconds)
    judge(run, nodes, tmp_path, record_property, faults=FAULTS)
