"""Two nodes behind nginx on one Valkey, hurt under load: nothing receipted is lost, nothing comes twice unmarked."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest
from tests.support.cluster import Nodes
from tests.support.deadline import SCALE
from tests.support.history import Enough, Fault, check
from tests.support.load import Run
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


@pytest.mark.parametrize("routing", ["directory", "broadcast", "subject"])
@pytest.mark.parametrize(
    "hurt",
    [kill_a_node, pause_a_node, restart_valkey, pause_valkey, restart_nodes_in_turn],
    ids=lambda each: each.__name__,
)
async def test_what_was_receipted_arrives(
    make_nodes: Callable[..., Nodes], own_valkey: Valkey, tmp_path: Path, routing: str, hurt: Hurt
) -> None:
    nodes = make_nodes(own_valkey.url, routing=routing, config=CONFIG)
    run = Run(nodes, SEED, senders=SENDERS, messages=MESSAGES, users=14, pipeline=1)
    await run.play(hurt(run, nodes, own_valkey), within=120 * SCALE)
    judge(run, nodes, tmp_path)
