"""The RECEIPT of a SUBSCRIBE comes once the subscription is in force on the backplane, however slow the way there."""

from collections.abc import Callable, Iterator

import pytest
from tests.support.client import StompClient
from tests.support.cluster import Nodes
from tests.support.valkey import Valkey

from postroom.testing.proxy import Proxy

CONFIG = """
[[channel]]
code = "FAST"
destination = "/user/*/queue/fast"
delivery = "transient"
"""


@pytest.fixture
def slow(valkey: Valkey) -> Iterator[Proxy]:
    """The second node's way to Valkey."""
    with Proxy(("127.0.0.1", valkey.port)) as proxy:
        yield proxy


@pytest.mark.parametrize("routing", ["directory", "subject"])
async def test_what_is_sent_on_another_node_after_the_receipt_arrives(
    make_nodes: Callable[..., Nodes], fresh_url: str, slow: Proxy, routing: str
) -> None:
    ways = [fresh_url, fresh_url.replace(fresh_url.partition("?")[0], f"redis://127.0.0.1:{slow.port}")]
    nodes = make_nodes(ways, routing=routing, config=CONFIG)
    one, two = nodes.nodes
    async with await StompClient.connect(one, "ann") as ann:
        slow.delay(0.25)
        for n, (subscribed, sent) in enumerate(
            [("/topic/news", "/topic/news"), ("/topic/room/*", "/topic/room/7"), ("/user/queue/fast", "")]
        ):
            async with await StompClient.connect(two, f"ben-{n}") as ben:
                await ben.subscribe(subscribed)
                await ann.send(sent or f"/user/ben-{n}/queue/fast", "hello")
                assert (await ben.message()).text == "hello"
