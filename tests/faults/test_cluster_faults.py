"""Two nodes behind nginx on one Valkey, hurt under load: nothing receipted is lost, nothing comes twice unmarked."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path

import pytest
from tests.support.cluster import Nodes
from tests.support.deadline import SCALE
from tests.support.history import Enough, Fault, check
from tests.support.load import Run
from tests.support.proxy import Proxy
from tests.support.valkey import Valkey

pytestmark = [pytest.mark.fault, pytest.mark.timeout(180 * SCALE)]

SEED = int(os.environ.get("POSTROOM_TEST_SEED", "1"))
SENDERS = 40
MESSAGES = 40
FAULTS = 2
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

Hurt = Callable[[Run, Nodes, Valkey], Coroutine[None, None, None]]


async def moments(run: Run) -> list[asyncio.Event]:
    """When to hurt: at random counts of receipts."""
    total = run.senders * run.messages
    return [run.reached(at) for at in sorted(run.random.sample(range(total // 10, total * 7 // 10), FAULTS))]


async def kill_a_node(run: Run, nodes: Nodes, valkey: Valkey) -> None:
    for moment in await moments(run):
        await moment.wait()
        run.history.note(Fault("kill -9 of a node"))
        node = run.random.choice(nodes.nodes)
        node.kill()
        run.heal()
        await asyncio.sleep(run.random.uniform(0.2, 1.5))
        await asyncio.to_thread(node.start)


async def pause_a_node(run: Run, nodes: Nodes, valkey: Valkey) -> None:
    for moment in await moments(run):
        await moment.wait()
        run.history.note(Fault("a node is paused for longer than its lease"))
        node = run.random.choice(nodes.nodes)
        node.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(LEASE * 1.7)
        node.process.send_signal(signal.SIGCONT)
        run.heal()


async def restart_valkey(run: Run, nodes: Nodes, valkey: Valkey) -> None:
    for moment in await moments(run):
        await moment.wait()
        run.history.note(Fault("kill -9 of Valkey"))
        valkey.kill()
        await asyncio.sleep(run.random.uniform(0.1, LEASE))
        await asyncio.to_thread(valkey.start)
        run.heal()


async def pause_valkey(run: Run, nodes: Nodes, valkey: Valkey) -> None:
    for moment in await moments(run):
        await moment.wait()
        run.history.note(Fault("Valkey is paused"))
        valkey.pause()
        await asyncio.sleep(run.random.choice([0.5, LEASE * 1.5, 7.0]))
        valkey.resume()
        run.heal()


async def cut_connections(run: Run, proxies: Sequence[Proxy]) -> None:
    for moment in await moments(run):
        await moment.wait()
        run.history.note(Fault("connections to Valkey are cut, again and again"))
        for _ in range(5):
            run.random.choice(proxies).cut()
            await asyncio.sleep(run.random.uniform(0.05, 0.3))
        run.heal()


async def cut_a_node_off(run: Run, proxies: Sequence[Proxy]) -> None:
    for moment in await moments(run):
        await moment.wait()
        run.history.note(Fault("a node cannot reach Valkey"))
        proxy = run.random.choice(proxies)
        proxy.refuse()
        await asyncio.sleep(run.random.choice([0.5, LEASE * 1.5]))
        proxy.heal()
        run.heal()


async def swallow_everything(run: Run, proxies: Sequence[Proxy]) -> None:
    for moment in await moments(run):
        await moment.wait()
        run.history.note(Fault("nothing goes through to Valkey, and nothing says so"))
        proxy = run.random.choice(proxies)
        proxy.blackhole()
        await asyncio.sleep(run.random.choice([1.0, 8.0]))
        proxy.cut()
        proxy.heal()
        run.heal()


async def slow_down(run: Run, proxies: Sequence[Proxy]) -> None:
    moment, *_ = await moments(run)
    await moment.wait()
    run.history.note(Fault("the way to Valkey is slow"))
    for proxy in proxies:
        proxy.delay(run.random.uniform(0.02, 0.1))
    await asyncio.sleep(5)
    for proxy in proxies:
        proxy.heal()
    run.heal()


async def lose_published(run: Run, proxies: Sequence[Proxy]) -> None:
    await run.reached(20).wait()
    run.history.note(Fault("a third of what is published is lost"))
    for proxy in proxies:
        proxy.drop_pubsub(0.3)
    await run.complete.wait()
    assert sum(proxy.dropped for proxy in proxies) > 10


async def restart_nodes_in_turn(run: Run, nodes: Nodes, valkey: Valkey) -> None:
    moment, *_ = await moments(run)
    await moment.wait()
    for node in nodes.nodes:
        run.history.note(Fault("SIGTERM to a node"))
        code = await asyncio.to_thread(node.stop)
        assert code == 0, node.output()
        run.heal()
        await asyncio.to_thread(node.start)


def judge(run: Run, nodes: Nodes, folder: Path, *, faults: int = FAULTS) -> None:
    """What the history says."""
    enough = Enough(
        receipted=run.senders * run.messages,
        redelivered=1,
        reconnected=1,
        faults=faults,
        faults_in_flight=1,
        unknown_share=0.0,
    )
    wrong = check(run.history, run.owners, enough)
    if wrong:
        run.history.dump(folder / "history.jsonl")
    told = ", ".join(f"{seconds:.2f} s" for seconds in run.resumed)
    print(f"delivery resumed {told} after the fault was over")
    assert wrong[:20] == [], f"{len(wrong)} in all; see {folder}/history.jsonl\n{nodes.output()}"
    assert "Traceback" not in nodes.output(100_000), nodes.output(200)


@pytest.mark.parametrize(
    ("hurt", "routing"),
    [
        *((hurt, "directory") for hurt in (pause_a_node, restart_valkey, pause_valkey, restart_nodes_in_turn)),
        *((kill_a_node, routing) for routing in ("directory", "broadcast", "subject")),
    ],
    ids=lambda each: getattr(each, "__name__", each),
)
async def test_what_was_receipted_arrives(
    make_nodes: Callable[..., Nodes], own_valkey: Valkey, tmp_path: Path, routing: str, hurt: Hurt
) -> None:
    nodes = make_nodes(own_valkey.url, routing=routing, config=CONFIG)
    run = Run(nodes, SEED, senders=SENDERS, messages=MESSAGES, users=14, pipeline=1)
    await run.play(hurt(run, nodes, own_valkey), within=120 * SCALE)
    judge(run, nodes, tmp_path)


@pytest.fixture
def ways(own_valkey: Valkey) -> Iterator[list[Proxy]]:
    """For each of two nodes its own way to Valkey."""
    proxies = [Proxy(own_valkey.port, seed=SEED + n) for n in range(2)]
    for proxy in proxies:
        proxy.start()
    yield proxies
    for proxy in proxies:
        proxy.close()


@pytest.mark.parametrize(
    "hurt",
    [cut_connections, cut_a_node_off, swallow_everything, slow_down, lose_published],
    ids=lambda each: each.__name__,
)
async def test_what_was_receipted_arrives_over_a_bad_network(
    make_nodes: Callable[..., Nodes],
    ways: list[Proxy],
    tmp_path: Path,
    hurt: Callable[[Run, Sequence[Proxy]], Coroutine[None, None, None]],
) -> None:
    nodes = make_nodes([f"redis://127.0.0.1:{way.port}?timeout=2" for way in ways], config=CONFIG)
    run = Run(nodes, SEED, senders=SENDERS, messages=MESSAGES, users=14, pipeline=1)
    await run.play(hurt(run, ways), within=120 * SCALE)
    judge(run, nodes, tmp_path, faults=1)
