"""Two nodes behind nginx, a Valkey, and a backplane that is hurt under load: nothing receipted is lost.

The form of `test_cluster_faults.py`, bounded: one fault a run.
"""

import asyncio
import os
import random
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path

import pytest
from tests.support.cluster import Nodes
from tests.support.deadline import SCALE
from tests.support.engines import Broker
from tests.support.history import Enough, Fault, check
from tests.support.load import Run
from tests.support.proxy import Proxy
from tests.support.valkey import Valkey

pytestmark = [pytest.mark.fault, pytest.mark.timeout(120 * SCALE)]

BACKPLANES = ("nats",)
SEED = int(os.environ.get("POSTROOM_TEST_SEED", "1"))
SENDERS = 20
MESSAGES = 20
LEASE = 3.0
CONFIG = f"""
drain-seconds = 2
[log]
level = "warning"
[cluster]
lease-seconds = {LEASE}
renew-seconds = 0.6
heartbeat-seconds = 0.6
reconcile-seconds = 15
"""
OPTIONS = "timeout=2&connect-timeout=2"

Hurt = Callable[[Run, Nodes, Broker, Sequence[Proxy]], Coroutine[None, None, None]]


async def kill_a_node(run: Run, nodes: Nodes, broker: Broker, ways: Sequence[Proxy]) -> None:
    node = run.random.choice(nodes.nodes)
    node.kill()
    run.heal()
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


SCENARIOS: Sequence[tuple[Hurt, str]] = [
    (kill_a_node, "broadcast"),
    (restart_it, "subject"),
    (pause_it, "directory"),
    (cut_connections, "directory"),
    (cut_a_node_off, "subject"),
]


@pytest.fixture(params=BACKPLANES)
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """The server, which may be hurt: it is mended afterwards."""
    server: Broker = request.getfixturevalue(request.param)
    yield server
    server.mend()


@pytest.fixture
def ways(broker: Broker) -> Iterator[list[Proxy]]:
    """For each of two nodes its own way to the backplane's server."""
    proxies = [Proxy(broker.port, seed=SEED + n) for n in range(2)]
    for proxy in proxies:
        proxy.start()
    yield proxies
    for proxy in proxies:
        proxy.close()


@pytest.mark.parametrize(("hurt", "routing"), SCENARIOS, ids=lambda each: getattr(each, "__name__", each))
async def test_what_was_receipted_arrives(
    make_nodes: Callable[..., Nodes],
    own_valkey: Valkey,
    broker: Broker,
    ways: list[Proxy],
    tmp_path: Path,
    hurt: Hurt,
    routing: str,
) -> None:
    prefix = f"prefix=f{random.SystemRandom().randrange(1 << 30)}"
    carriers = [f"{broker.url_at(way.port)}?{prefix}&{OPTIONS}" for way in ways]
    nodes = make_nodes(own_valkey.url, routing=routing, backplane=carriers, config=CONFIG)
    run = Run(nodes, SEED, senders=SENDERS, messages=MESSAGES, users=14, pipeline=1)

    async def in_the_middle() -> None:
        total = SENDERS * MESSAGES
        await run.reached(run.random.randrange(total // 10, total // 2)).wait()
        run.history.note(Fault(f"{hurt.__name__} ({broker.name})"))
        await hurt(run, nodes, broker, ways)
        run.heal()

    await run.play(in_the_middle(), within=90 * SCALE)
    enough = Enough(
        receipted=SENDERS * MESSAGES, redelivered=1, reconnected=1, faults=1, faults_in_flight=1, unknown_share=0.0
    )
    wrong = check(run.history, run.owners, enough)
    if wrong:
        run.history.dump(tmp_path / "history.jsonl")
    assert wrong[:20] == [], f"{len(wrong)} in all; see {tmp_path}/history.jsonl\n{nodes.output()}"
    if hurt is not kill_a_node:
        assert nodes.metrics()["backplane_interruptions"] > 0
    assert "Traceback" not in nodes.output(100_000), nodes.output(200)
