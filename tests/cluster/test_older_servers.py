"""Two nodes on a Redis 7 and on a Valkey 8: the main job."""

from collections.abc import Callable

import pytest
from tests.support.client import StompClient
from tests.support.cluster import Nodes

INBOX = "/user/queue/inbox"


@pytest.mark.parametrize("routing", ["directory", "broadcast", "subject"])
async def test_a_message_finds_its_user_on_another_node_and_waits_for_one_who_is_away(
    make_nodes: Callable[..., Nodes], other_url: str, routing: str
) -> None:
    nodes = make_nodes(other_url, routing=routing)
    one, two = nodes.nodes
    async with await StompClient.connect(one, "ann") as ann:
        async with await StompClient.connect(two, "ben") as ben:
            await ben.subscribe(INBOX)
            for n in range(20):
                await ann.send("/user/ben/queue/inbox", f"{n}")
            assert [message.text for message in await ben.messages(20)] == [str(n) for n in range(20)]
            await ben.confirmed()
        await ann.send("/user/ben/queue/inbox", "later")
    async with await StompClient.connect(nodes, "ben") as ben:
        await ben.subscribe(INBOX)
        assert (await ben.message()).text == "later"
