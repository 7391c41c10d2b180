"""Two nodes behind nginx on one Valkey, hurt under load: nothing receipted is lost, nothing comes twice unmarked."""

import asyncio
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.support.cluster import Nodes
from tests.support.faults import (
    CONFIG,
    LEASE,
    SEED,
    SIZE,
    Round,
    Tell,
    cut_connections,
    judge,
    kill_a_node,
    load,
    moments,
    pause_the_store,
    restart_the_store,
    rounds,
)
from tests.support.history import Fault
from tests.support.load import Run
from tests.support.proxy import LossyProxy
from tests.support.valkey import Valkey

pytestmark = [pytest.mark.fault, pytest.mark.timeout(SIZE.seconds + 60)]


async def pause_a_node(run: Run, nodes: Nodes, valkey: Valkey) -> None:
    async for _ in moments(run):
        run.history.note(Fault("a node is paused for longer than its lease"))
        node = run.random.choice(nodes.nodes)
        node.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(LEASE * 1.7)
        node.process.send_signal(signal.SIGCONT)
        run.heal()


async def cut_a_node_off(run: Run, proxies: Sequence[LossyProxy]) -> None:
    async for _ in moments(run):
        run.history.note(Fault("a node cannot reach Valkey"))
        proxy = run.random.choice(proxies)
        proxy.refuse()
        await asyncio.sleep(run.random.choice([0.5, LEASE * 1.5]))
        proxy.heal()
        run.heal()


async def swallow_everything(run: Run, proxies: Sequence[LossyProxy]) -> None:
    async for _ in moments(run):
        run.history.note(Fault("nothing goes through to Valkey, and nothing says so"))
        proxy = run.random.choice(proxies)
        proxy.blackhole()
        await asyncio.sleep(run.random.choice([1.0, 8.0]))
        proxy.cut()
        proxy.heal()
        run.heal()


async def slow_down(run: Run, proxies: Sequence[LossyProxy]) -> None:
    async for _ in moments(run, 1):
        run.history.note(Fault("the way to Valkey is slow"))
        for proxy in proxies:
            proxy.delay(run.random.uniform(0.02, 0.1))
        await asyncio.sleep(5)
        for proxy in proxies:
            proxy.heal()
        run.heal()


async def lose_published(run: Run, proxies: Sequence[LossyProxy]) -> None:
    await run.reached(20).wait()
    await run.flying()
    run.history.note(Fault("a third of what is published is lost"))
    for proxy in proxies:
        proxy.drop_pubsub(0.3)
    await run.complete.wait()
    assert sum(proxy.dropped for proxy in proxies) > 10


async def restart_nodes_in_turn(run: Run, nodes: Nodes, valkey: Valkey) -> None:
    async for _ in moments(run, 1):
        for node in nodes.nodes:
            run.history.note(Fault("SIGTERM to a node"))
            code = await asyncio.to_thread(node.stop)
            assert code == 0, node.output()
            run.heal()
            await asyncio.to_thread(node.start)


@pytest.mark.parametrize(
    "round",
    rounds(
        [kill_a_node, pause_a_node, restart_the_store, pause_the_store, restart_nodes_in_turn], thorough=[kill_a_node]
    ),
    ids=str,
)
async def test_what_was_receipted_arrives(
    make_nodes: Callable[..., Nodes], own_valkey: Valkey, tmp_path: Path, round: Round, record_property: Tell
) -> None:
    nodes = make_nodes(own_valkey.url, routing=round.routing, config=CONFIG)
    run = load(nodes, round.seed)
    await run.play(round.hurt(run, nodes, own_valkey), within=SIZE.seconds)
    judge(run, nodes, tmp_path, record_property)


@pytest.fixture
def ways(own_valkey: Valkey) -> Iterator[list[LossyProxy]]:
    """For each of two nodes its own way to Valkey."""
    with ExitStack() as stack:
        target = ("127.0.0.1", own_valkey.port)
        yield [stack.enter_context(LossyProxy(target, seed=SEED + n)) for n in range(2)]


@pytest.mark.parametrize(
    "round", rounds([cut_connections, cut_a_node_off, swallow_everything, slow_down, lose_published]), ids=str
)
async def test_what_was_receipted_arrives_over_a_bad_network(
    make_nodes: Callable[..., Nodes], ways: list[LossyProxy], tmp_path: Path, round: Round, record_property: Tell
) -> None:
    urls = [f"redis://127.0.0.1:{way.port}?timeout=2" for way in ways]
    nodes = make_nodes(urls, routing=round.routing, config=CONFIG)
    run = load(nodes, round.seed)
    await run.play(round.hurt(run, ways), within=SIZE.seconds)
    judge(run, nodes, tmp_path, record_property, faults=1)
