"""Store and backplane on a server each: what goes on while one of them is away, and how it comes back."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.client import StompClient
from tests.support.cluster import Nodes
from tests.support.deadline import DEADLINE
from tests.support.server import Server
from tests.support.valkey import Valkey

INBOX = "/user/queue/inbox"
CONFIG = """
[cluster]
lease-seconds = 60
renew-seconds = 0.4
heartbeat-seconds = 0.3
reconcile-seconds = 3600
[[channel]]
code = "FAST"
destination = "/user/*/queue/fast"
delivery = "transient"
"""

Make = Callable[..., Nodes]


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Valkey]:
    """The backplane; `own_valkey` is the store."""
    with Valkey(tmp_path / "backplane") as server:
        yield server


@pytest.fixture(params=["directory", "broadcast", "subject"])
def nodes(request: pytest.FixtureRequest, make_nodes: Make, own_valkey: Valkey, other: Valkey) -> Nodes:
    """Two nodes on both."""
    config = f"backplane = '{other.url}?timeout=1'\n{CONFIG}"
    return make_nodes(f"{own_valkey.url}?timeout=1", routing=request.param, config=config)


async def until_ready(node: Server, ready: bool) -> list[str]:
    """Why the node is not ready, once it is as it should be."""
    async with asyncio.timeout(3 * DEADLINE), httpx.AsyncClient() as client:
        while True:
            answer = await client.get(f"{node.http}/readyz")
            if (answer.status_code == 200) is ready:
                return [*json.loads(answer.text)["reasons"]]
            await asyncio.sleep(0.05)


async def test_without_the_backplane_each_node_goes_on_and_the_rest_arrives_once_it_is_back(
    nodes: Nodes, other: Valkey
) -> None:
    one, two = nodes.nodes
    async with (
        await StompClient.connect(one, "ann") as ann,
        await StompClient.connect(one, "ben") as ben,
        await StompClient.connect(two, "far") as far,
    ):
        await ben.subscribe("/user/queue/fast", id="fast")
        await ben.subscribe("/topic/here", id="topic")
        await ben.subscribe(INBOX, id="inbox")
        await far.subscribe(INBOX, id="inbox")
        await far.subscribe("/user/queue/fast", id="fast")
        await asyncio.to_thread(other.kill)
        await ann.send("/user/ben/queue/fast", "transient")
        assert (await ben.message("fast")).text == "transient"
        await ann.send("/topic/here", "topical")
        assert (await ben.message("topic")).text == "topical"
        for n in range(5):
            await ann.send("/user/ben/queue/inbox", f"{n}")
            await ann.send("/user/far/queue/inbox", f"{n}")
        assert [message.text for message in await ben.messages(5, "inbox")] == [str(n) for n in range(5)]
        assert "the backplane brings nothing" in (await until_ready(one, ready=False))[0]
        await asyncio.to_thread(other.start)
        assert [message.text for message in await far.messages(5, "inbox")] == [str(n) for n in range(5)]
        for node in nodes.nodes:
            await until_ready(node, ready=True)
        await ann.send("/user/far/queue/fast", "transient again")
        assert (await far.message("fast")).text == "transient again"


async def test_without_the_store_durable_messages_are_refused_and_transient_ones_go_on_between_nodes(
    nodes: Nodes, own_valkey: Valkey
) -> None:
    one, two = nodes.nodes
    async with (
        await StompClient.connect(one, "ann") as ann,
        await StompClient.connect(two, "far") as far,
        await StompClient.connect(two, "ben") as ben,
    ):
        await ann.subscribe("/user/queue/errors", id="errors")
        await far.subscribe("/user/queue/fast", id="fast")
        await far.subscribe("/topic/all", id="topic")
        await far.subscribe(INBOX, id="inbox")
        await ben.subscribe(INBOX, id="inbox")
        await asyncio.to_thread(own_valkey.kill)
        await ann.send("/user/far/queue/inbox", "lost?", receipt=False, headers={"receipt": "no"})
        refused = await ann.message("errors")
        assert (refused.headers["code"], refused.headers["receipt-id"]) == ("store-unavailable", "no")
        for n in range(5):
            await ann.send("/user/far/queue/fast", f"{n}")
        assert [message.text for message in await far.messages(5, "fast")] == [str(n) for n in range(5)]
        await ann.send("/topic/all", "topical")
        assert (await far.message("topic")).text == "topical"
        async with await StompClient.connect(two, "new") as new:
            await new.subscribe("/user/queue/fast", id="fast", receipt=False)  # it is in force once nodes can be told
            await new.barrier()
            await ann.send("/user/new/queue/fast", "to one who came meanwhile")
            assert (await new.message("fast")).text == "to one who came meanwhile"
        assert "the store is unavailable" in await until_ready(one, ready=False)
        assert [frame for frame in ann.inbox if frame.command == "RECEIPT"] == []
        await asyncio.to_thread(own_valkey.start)
        for node in nodes.nodes:
            await until_ready(node, ready=True)
        await ann.send("/user/ben/queue/inbox", "after")
        assert (await ben.message("inbox")).text == "after"
