"""Two nodes behind nginx, a store, and a backplane that is hurt under load: nothing receipted is lost.

The form of `test_cluster_faults.py`, bounded: one fault a run, each fault with one scheme and one store, and the other
version of RabbitMQ with two faults.
"""

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path

import pytest
from tests.support.cluster import Nodes
from tests.support.deadline import DEADLINE
from tests.support.engines import Broker, RabbitMQ
from tests.support.faults import CONFIG, LONG, ROUTINGS, SEED, SIZE, Tell, judge, light_load, moments, started
from tests.support.history import Fault
from tests.support.load import Run
from tests.support.postgres import Postgres
from tests.support.valkey import Valkey

from postroom.testing.proxy import Proxy

pytestmark = [pytest.mark.fault, pytest.mark.timeout(SIZE.seconds + 60)]

BACKPLANES = ("nats", "rabbitmq", "kafka")
STORES = ("valkey", "postgres")
FAULTS = SIZE.faults if LONG else 1
OPTIONS = "timeout=2"

Hurt = Callable[[Run, Nodes, Broker, Sequence[Proxy]], Coroutine[None, None, None]]
_names = itertools.count(1)


async def kill_a_node(run: Run, nodes: Nodes, broker: Broker, ways: Sequence[Proxy]) -> None:
    node = run.random.choice(nodes.nodes)
    node.kill()
    await asyncio.sleep(run.random.uniform(0.2, 1.0))
    await asyncio.to_thread(node.start)


async def restart_it(run: Run, nodes: Nodes, broker: Broker, ways: Sequence[Proxy]) -> None:
    await asyncio.to_thread(broker.kill)
    await asyncio.sleep(run.random.uniform(0.1, 1.0))
    await asyncio.to_thread(broker.start)


async def pause_it(run: Run, nodes: Nodes, broker: Broker, ways: Sequence[Proxy]) -> None:
    broker.pause()
    await asyncio.sleep(5.0)
    broker.resume()


async def cut_connections(run: Run, nodes: Nodes, broker: Broker, ways: Sequence[Proxy]) -> None:
    for _ in range(5):
        run.random.choice(ways).cut()
        await asyncio.sleep(run.random.uniform(0.05, 0.5))


async def cut_a_node_off(run: Run, nodes: Nodes, broker: Broker, ways: Sequence[Proxy]) -> None:
    ways[0].refuse()
    await asyncio.sleep(2.0)
    ways[0].heal()
    ways[1].blackhole()
    await asyncio.sleep(3.0)
    ways[1].cut()
    ways[1].heal()


async def raise_an_alarm(run: Run, nodes: Nodes, broker: Broker, ways: Sequence[Proxy]) -> None:
    assert isinstance(broker, RabbitMQ)
    await asyncio.to_thread(broker.control, "set_vm_memory_high_watermark", "0.000001")
    await asyncio.sleep(5.0)
    await asyncio.to_thread(broker.control, "set_vm_memory_high_watermark", "0.4")


HURTS: Sequence[Hurt] = (kill_a_node, restart_it, pause_it, cut_connections, cut_a_node_off)


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """The server, which may be hurt: it is mended afterwards."""
    server: Broker = request.getfixturevalue(request.param)
    yield server
    server.mend()


@pytest.fixture
def ways(broker: Broker) -> Iterator[Sequence[Proxy]]:
    """For each of two nodes its own way to the backplane's server."""
    with started([broker.proxy(number, seed=SEED) for number in range(2)]) as proxies:
        yield proxies


@pytest.fixture
def store_url(store: str, request: pytest.FixtureRequest) -> str:
    """A server of the run's own, which keeps what was accepted."""
    if store == "postgres":
        server: Postgres = request.getfixturevalue("own_postgres")
        return server.url()
    valkey: Valkey = request.getfixturevalue("own_valkey")
    return valkey.url


def hurts(broker: str) -> Sequence[Hurt]:
    if not broker.startswith("rabbitmq"):
        return HURTS
    if LONG:
        return (*HURTS, raise_an_alarm)
    return HURTS if broker == "rabbitmq" else (restart_it, raise_an_alarm)


def turns(at: int, each: Sequence[str]) -> Sequence[str]:
    return each if LONG else (each[(at + SEED) % len(each)],)


@pytest.mark.parametrize(
    ("broker", "hurt", "routing", "store"),
    [
        (broker, hurt, routing, store)
        for broker in (*BACKPLANES, "rabbitmq4")
        for at, hurt in enumerate(hurts(broker))
        for routing in turns(at, ROUTINGS)
        for store in turns(at, STORES)
    ],
    indirect=["broker"],
    ids=lambda each: getattr(each, "__name__", each),
)
async def test_what_was_receipted_arrives(
    broker: Broker,
    ways: Sequence[Proxy],  # before the nodes, so that these end first
    store_url: str,
    make_nodes: Callable[..., Nodes],
    tmp_path: Path,
    record_property: Tell,
    hurt: Hurt,
    routing: str,
) -> None:
    prefix = f"prefix=faults-{next(_names)}"
    carriers = [f"{broker.url_at(way.port)}?{prefix}&{OPTIONS}" for way in ways]
    nodes = make_nodes(store_url, routing=routing, backplane=carriers, config=CONFIG)
    run = light_load(nodes)

    async def trouble() -> None:
        async for _ in moments(run, FAULTS):
            run.history.note(Fault(f"{hurt.__name__} ({broker.name})"))
            await hurt(run, nodes, broker, ways)
            run.heal()

    await run.play(trouble(), within=SIZE.seconds)
    judge(run, nodes, tmp_path, record_property, faults=FAULTS)
    if hurt is not kill_a_node and not (hurt is cut_connections and broker.keeps):
        async with asyncio.timeout(3 * DEADLINE):  # a broker that starts slowly is back after the last message
            while not (await asyncio.to_thread(nodes.metrics))["backplane_interruptions"]:
                await asyncio.sleep(0.1)
