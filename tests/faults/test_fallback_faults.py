"""Three nodes behind nginx, hurt while all clients come over SockJS's HTTP transports, nothing sticky."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest
from tests.support.cluster import Nodes
from tests.support.fallback_client import FallbackClient
from tests.support.faults import CONFIG, SEED, SIZE, Tell, judge, moments
from tests.support.history import Fault
from tests.support.load import Run
from tests.support.valkey import Valkey

pytestmark = [pytest.mark.fault, pytest.mark.timeout(SIZE.seconds + 60)]

_SOCKJS = """
[sockjs]
prove-seconds = 0.5
"""


async def kill_a_node(run: Run, nodes: Nodes) -> None:
    """Whichever it is: some sessions live there, and others are served through it."""
    async for _ in moments(run):
        run.history.note(Fault("kill -9 of a node"))
        node = run.random.choice(nodes.nodes)
        node.kill()
        run.heal()
        await asyncio.sleep(run.random.uniform(0.2, 1.5))
        await asyncio.to_thread(node.start)


async def restart_nodes_in_turn(run: Run, nodes: Nodes) -> None:
    async for _ in moments(run, 1):
        for node in nodes.nodes:
            run.history.note(Fault("SIGTERM to a node"))
            code = await asyncio.to_thread(node.stop)
            assert code == 0, node.output()
            run.heal()
            await asyncio.to_thread(node.start)


@pytest.mark.parametrize("hurt", [kill_a_node, restart_nodes_in_turn], ids=lambda hurt: hurt.__name__)
async def test_what_was_receipted_arrives_over_http(
    make_nodes: Callable[..., Nodes],
    own_valkey: Valkey,
    tmp_path: Path,
    hurt: Callable[[Run, Nodes], Coroutine[None, None, None]],
    record_property: Tell,
) -> None:
    nodes = make_nodes(own_valkey.url, count=3, config=CONFIG + _SOCKJS)
    run = Run(nodes, SEED, senders=20, messages=30, users=8, pipeline=1, pause=0.1, pings=False, clients=FallbackClient)
    await run.play(hurt(run, nodes), within=SIZE.seconds)
    judge(run, nodes, tmp_path, record_property, faults=1)
