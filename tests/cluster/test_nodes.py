"""Three nodes on one Valkey: what a client sees that can only be seen with more than one."""

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
QUICK = """
[cluster]
lease-seconds = 2
renew-seconds = 0.4
heartbeat-seconds = 0.3
[[channel]]
code = "FAST"
destination = "/user/*/queue/fast"
delivery = "transient"
[[channel]]
code = "NEWS"
destination = "/topic/news"
history = 100
"""


@pytest.fixture(scope="module", params=["directory", "broadcast", "subject"])
def three(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, valkey: Valkey) -> Iterator[Nodes]:
    """Three nodes that no test here hurts."""
    folder = tmp_path_factory.mktemp("three")
    nodes = Nodes(folder, f"{valkey.url}?prefix=three-{request.param}", count=3, config=QUICK, routing=request.param)
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.close()


async def texts(client: StompClient, count: int, subscription: str | None = None) -> list[str]:
    return [(await client.message(subscription)).text for _ in range(count)]


async def quiet(client: StompClient, seconds: float = 0.3) -> bool:
    try:
        await client.message(within=seconds)
    except AssertionError:
        return True
    return False


async def test_a_message_finds_its_user_on_another_node(three: Nodes) -> None:
    one, two, _ = three.nodes
    async with await StompClient.connect(one, "f-ann") as ann, await StompClient.connect(two, "f-ben") as ben:
        await ben.subscribe(INBOX)
        for n in range(50):
            await ann.send("/user/f-ben/queue/inbox", f"{n}", receipt=n % 7 == 0)
        assert await texts(ben, 50) == [str(n) for n in range(50)]


async def test_transient_messages_keep_their_order_over_nodes(three: Nodes) -> None:
    one, _, other = three.nodes
    async with await StompClient.connect(one, "t-ann") as ann, await StompClient.connect(other, "t-ben") as ben:
        await ben.subscribe("/user/queue/fast")
        for n in range(300):
            await ann.send("/user/t-ben/queue/fast", f"{n}", receipt=False)
        assert await texts(ben, 300) == [str(n) for n in range(300)]


async def test_each_tab_on_each_node_gets_each_message_and_there_is_one_cursor(three: Nodes) -> None:
    sender = await StompClient.connect(three.nodes[0], "tabs-ann")
    tabs = [await StompClient.connect(node, "tabs-ben") for node in three.nodes]
    try:
        for tab in tabs:
            await tab.subscribe(INBOX)
        for n in range(10):
            await sender.send("/user/tabs-ben/queue/inbox", f"{n}")
        for tab in tabs:
            assert await texts(tab, 10) == [str(n) for n in range(10)]
        await tabs[1].confirmed()
        await asyncio.sleep(0.3)
        async with await StompClient.connect(three.nodes[2], "tabs-ben") as late:
            await late.subscribe(INBOX)
            await sender.send("/user/tabs-ben/queue/inbox", "new")
            assert await texts(late, 1) == ["new"]
    finally:
        for client in (sender, *tabs):
            await client.cut()


async def test_a_device_on_another_node_has_a_cursor_of_its_own(three: Nodes) -> None:
    one, two, other = three.nodes
    async with await StompClient.connect(one, "d-ann") as ann:
        for node, device in ((two, "phone"), (other, "desk")):
            async with await StompClient.connect(node, "d-ben", device=device) as ben:
                await ben.subscribe(INBOX)
        await ann.send("/user/d-ben/queue/inbox", "for both")
        for node, device in ((one, "phone"), (two, "desk")):
            async with await StompClient.connect(node, "d-ben", device=device) as ben:
                await ben.subscribe(INBOX)
                assert await texts(ben, 1) == ["for both"]


async def test_what_waited_is_read_on_any_node(three: Nodes) -> None:
    one, two, other = three.nodes
    async with await StompClient.connect(one, "w-ann") as ann:
        for n in range(5):
            await ann.send("/user/w-ben/queue/inbox", f"{n}")
    async with await StompClient.connect(two, "w-ben") as ben:
        await ben.subscribe(INBOX)
        assert await texts(ben, 5) == [str(n) for n in range(5)]
        await ben.confirmed()
        await asyncio.sleep(0.3)
    async with await StompClient.connect(other, "w-ben") as ben:
        await ben.subscribe(INBOX)
        assert await quiet(ben)


async def test_topics_reach_every_node_once_whoever_subscribes_how(three: Nodes) -> None:
    clients = [await StompClient.connect(node, f"top-{n}") for n, node in enumerate(three.nodes)]
    try:
        for client in clients:
            await client.subscribe("/topic/room/7", id="exact")
            await client.subscribe("/topic/room/*", id="pattern")
            await client.subscribe("/topic/room/**", id="deep")
        for n, client in enumerate(clients):
            await client.send("/topic/room/7", f"from {n}")
        for client in clients:
            for id in ("exact", "pattern", "deep"):
                assert sorted(await texts(client, 3, id)) == ["from 0", "from 1", "from 2"]
            assert await quiet(client)
    finally:
        for client in clients:
            await client.cut()


async def test_a_topic_is_not_heard_after_its_last_subscriber_here_left(three: Nodes) -> None:
    one, two, _ = three.nodes
    await two.reaches("users", 0)
    await asyncio.sleep(0.5)  # what the tests before followed is given up
    before = two.metrics()["backplane_subjects"]
    async with await StompClient.connect(two, "left") as client:
        await client.subscribe("/topic/short", id="t")
        assert two.metrics()["backplane_subjects"] >= before + 1
        await client.command("UNSUBSCRIBE", {"id": "t"})
    await two.reaches("users", 0)
    await two.reaches("backplane_subjects", before)
    assert one.healthy()


async def test_a_topics_history_is_one_on_all_nodes(three: Nodes) -> None:
    one, two, other = three.nodes
    async with await StompClient.connect(two, "h-two") as follower, await StompClient.connect(one, "h-one") as writer:
        await follower.subscribe("/topic/news", id="live")
        for n in range(5):
            await writer.send("/topic/news", f"{n}")
        seen = [await follower.message("live") for _ in range(5)]
        assert [message.text for message in seen] == [str(n) for n in range(5)]
        where = {"after-offset": seen[1].headers["offset"], "epoch": seen[1].headers["epoch"]}
        async with await StompClient.connect(other, "h-other") as late:
            receipt = await late.subscribe("/topic/news", id="late", headers=where)
            assert receipt is not None
            assert receipt.headers["recovered"] == "true"
            assert await texts(late, 3) == ["2", "3", "4"]
            await writer.send("/topic/news", "5")
            assert await texts(late, 1) == ["5"]
            assert await texts(follower, 1) == ["5"]


async def test_every_node_is_ready_and_hears_itself(three: Nodes) -> None:
    for node in three.nodes:
        assert json.loads(node.get("/readyz")) == {"ready": True, "reasons": []}
        assert node.metrics()["backplane_deaf"] == 0
        assert node.metrics()["peers"] == 2


# ── a cluster of the test's own ───────────────────────────────────────────────────────────────────────────


async def until_ready(node: Server, ready: bool, within: float = 3 * DEADLINE) -> list[str]:
    async with asyncio.timeout(within), httpx.AsyncClient() as client:
        while True:
            answer = await client.get(f"{node.http}/readyz")
            if (answer.status_code == 200) is ready:
                return [*answer.json()["reasons"]]
            await asyncio.sleep(0.05)


async def test_the_users_of_a_killed_node_are_offline_when_its_lease_ends(
    make_nodes: Callable[..., Nodes], fresh_url: str
) -> None:
    nodes = make_nodes(fresh_url, config=QUICK)
    one, two = nodes.nodes
    ben = await StompClient.connect(two, "ben")
    await ben.subscribe(INBOX)
    two.kill()
    await one.reaches("peers", 0)
    async with await StompClient.connect(one, "ann") as ann:
        published = one.metrics()["backplane_items_published"]
        await ann.send("/user/ben/queue/inbox", "waits")
        assert one.metrics()["backplane_items_published"] - published <= 4  # heart-beats and canaries, nothing else
    async with await StompClient.connect(one, "ben") as again:
        await again.subscribe(INBOX)
        assert await texts(again, 1) == ["waits"]


async def test_without_the_store_durable_messages_are_refused_and_local_ones_go_on(
    make_nodes: Callable[..., Nodes], own_valkey: Valkey
) -> None:
    patient = QUICK.replace("lease-seconds = 2", "lease-seconds = 30")  # nobody counts as dead meanwhile
    nodes = make_nodes(own_valkey.url + "?timeout=1", config=patient)
    one, two = nodes.nodes
    ann = await StompClient.connect(one, "ann")
    ben = await StompClient.connect(one, "ben")
    far = await StompClient.connect(two, "far")
    try:
        await ann.subscribe("/user/queue/errors", id="errors")
        await ben.subscribe("/user/queue/fast", id="fast")
        await ben.subscribe("/topic/here", id="topic")
        await far.subscribe(INBOX, id="inbox")
        await asyncio.to_thread(own_valkey.kill)
        await ann.send("/user/far/queue/inbox", "lost?", receipt=False, headers={"receipt": "no"})
        refused = await ann.message("errors")
        assert refused.headers["code"] == "store-unavailable"
        assert refused.headers["receipt-id"] == "no"
        await ann.send("/user/ben/queue/fast", "local")
        assert await texts(ben, 1, "fast") == ["local"]
        await ann.send("/topic/here", "topical")
        assert await texts(ben, 1, "topic") == ["topical"]
        assert await until_ready(one, ready=False)
        await asyncio.to_thread(own_valkey.start)
        for node in nodes.nodes:
            await until_ready(node, ready=True)
        while True:
            try:
                await asyncio.wait_for(ann.send("/user/far/queue/inbox", "after"), 2)
                break
            except TimeoutError:
                pass
        assert "after" in await texts(far, 1, "inbox")
    finally:
        for client in (ann, ben, far):
            await client.cut()


async def test_a_deaf_node_says_so_and_hears_again(make_nodes: Callable[..., Nodes], own_valkey: Valkey) -> None:
    nodes = make_nodes(own_valkey.url + "?prefix=deaf", config=QUICK)
    one = nodes.nodes[0]
    own_valkey.command("ACL", "SETUSER", "default", "-publish")
    reasons = await until_ready(one, ready=False)
    assert "does not hear itself" in reasons[0]
    assert one.metrics()["backplane_deaf"] == 1
    own_valkey.command("ACL", "SETUSER", "default", "+publish")
    await until_ready(one, ready=True)


async def test_sigterm_moves_clients_to_the_other_node(make_nodes: Callable[..., Nodes], fresh_url: str) -> None:
    nodes = make_nodes(fresh_url, config="drain-seconds = 1\n" + QUICK)
    one, two = nodes.nodes
    ann = await StompClient.connect(two, "ann")
    clients = [await StompClient.connect(one, f"c{n}") for n in range(20)]
    for client in clients:
        await client.subscribe(INBOX)
    code, *codes = await asyncio.gather(asyncio.to_thread(one.stop), *(client.ended() for client in clients))
    assert code == 0
    assert set(codes) == {1012}
    await two.reaches("peers", 0)
    for n in range(20):
        await ann.send(f"/user/c{n}/queue/inbox", "waits")
        async with await StompClient.connect(nodes, f"c{n}") as again:
            await again.subscribe(INBOX)
            assert await texts(again, 1) == ["waits"]
    await ann.cut()


def test_nodes_need_a_store_that_they_can_share(tmp_path: Path) -> None:
    server = Server(tmp_path, options=["--backplane", "redis://127.0.0.1:1"])
    with pytest.raises(AssertionError, match="sqlite: is a store for one node"):
        server.start()
    assert list(tmp_path.glob("x.db*")) == []
