"""Two users, two nodes, nginx: the main job over each backplane with each routing scheme, on Valkey and PostgreSQL."""

import asyncio
from itertools import cycle

import pytest
from tests.support.client import StompClient
from tests.support.cluster import Nodes
from tests.support.server import Server

pytestmark = pytest.mark.e2e

INBOX = "/user/queue/inbox"
BACKPLANES = ("nats", "rabbitmq", "kafka")
ROUTINGS = ("directory", "broadcast", "subject")
ON_VALKEY = [f"{routing} over {name}" for name in BACKPLANES for routing in ROUTINGS]
OTHER_VERSIONS = ["subject over rabbitmq4"]
_IN_TURN = zip(cycle(ROUTINGS), ("valkey", *BACKPLANES), strict=False)
ON_POSTGRES = [f"{routing} over {name} on postgres" for routing, name in _IN_TURN]
ON_POSTGRES_ALONE = [f"{routing} on postgres" for routing in ROUTINGS]


@pytest.fixture(scope="module", params=[*ON_VALKEY, *OTHER_VERSIONS, *ON_POSTGRES, *ON_POSTGRES_ALONE])
def arrangement(request: pytest.FixtureRequest) -> str:
    """See the fixture of this name in `tests/conftest.py`."""
    return str(request.param)


@pytest.fixture
def nodes(shared_server: Server) -> tuple[Server, Server]:
    """The two nodes themselves, past nginx."""
    assert isinstance(shared_server, Nodes)
    one, two = shared_server.nodes
    return one, two


def texts(messages: list[str], start: int) -> list[str]:
    return [f"{start + n}" for n in range(len(messages))]


async def test_a_user_goes_offline_and_comes_back(shared_server: Server) -> None:
    async with await StompClient.connect(shared_server, "anna") as anna:
        async with await StompClient.connect(shared_server, "bert") as bert:
            await bert.subscribe(INBOX)
            for n in range(50):
                await anna.send("/user/bert/queue/inbox", str(n), receipt=False)
            await anna.barrier()
            live = [message.text for message in await bert.messages(50)]
            await bert.confirmed()
        for n in range(50, 60):
            await anna.send("/user/bert/queue/inbox", str(n))
        async with await StompClient.connect(shared_server, "bert") as bert:
            await bert.subscribe(INBOX)
            late = [message.text for message in await bert.messages(10)]
            await anna.send("/user/bert/queue/inbox", "60")
            late.append((await bert.message()).text)
            await bert.confirmed()
    assert live == texts(live, 0)
    assert late == texts(late, 50)


async def test_what_one_node_stores_another_delivers_at_once(nodes: tuple[Server, Server]) -> None:
    one, two = nodes
    async with await StompClient.connect(one, "cora") as cora, await StompClient.connect(two, "dirk") as dirk:
        await dirk.subscribe(INBOX)
        await cora.subscribe(INBOX)
        for n in range(20):
            await cora.send("/user/dirk/queue/inbox", f"ping {n}", receipt=False)
            assert (await dirk.message()).text == f"ping {n}"
            await dirk.send("/user/cora/queue/inbox", f"pong {n}", receipt=False)
            assert (await cora.message()).text == f"pong {n}"


async def test_a_user_with_any_name_is_found(nodes: tuple[Server, Server]) -> None:
    one, two = nodes
    name = "Zoë M. *>#"
    async with await StompClient.connect(one, "emil") as emil, await StompClient.connect(two, name) as zoe:
        await zoe.subscribe(INBOX)
        await emil.send("/user/Zo%C3%AB%20M.%20*%3E%23/queue/inbox", "found")
        assert (await zoe.message()).text == "found"


async def test_topics_reach_both_nodes_each_message_once(nodes: tuple[Server, Server]) -> None:
    clients = await asyncio.gather(
        *(StompClient.connect(node, f"topical-{at}-{n}") for at, node in enumerate(nodes) for n in range(2))
    )
    for client in clients[::2]:
        await client.subscribe("/topic/engines")
    for client in clients[1::2]:
        await client.subscribe("/topic/engi*")
    await clients[0].send("/topic/engines", "from one")
    await clients[2].send("/topic/engines", "from the other")
    for client in clients:
        assert sorted(message.text for message in await client.messages(2)) == ["from one", "from the other"]
        await client.barrier()
        assert client.waiting() == []
        await client.close()
