"""The cluster in one loop that tests of applications are made with."""

import asyncio

import pytest

from postroom.testing.cluster import Cluster, Ended

INBOX = "/user/queue/inbox"


async def test_a_message_sent_while_ben_is_away_is_the_first_he_gets_on_another_node() -> None:
    async with Cluster(2) as nodes:
        async with nodes[0].connect("ann") as ann:
            await ann.send("/user/ben/queue/inbox", b"hello")
        async with nodes[1].connect("ben") as ben:
            await ben.subscribe(INBOX)
            assert (await ben.message()).body == b"hello"


async def test_a_message_crosses_from_node_to_node_while_both_are_here() -> None:
    async with (
        Cluster(3) as nodes,
        nodes[0].connect("ann") as ann,
        nodes[1].connect("ben") as ben,
        nodes[2].connect("ben", device="phone") as phone,
    ):
        await ben.subscribe(INBOX, ack="client")
        await phone.subscribe(INBOX)
        await ann.send("/user/ben/queue/inbox", b"hello", {"x": "y"})
        message = await ben.message()
        assert (message.body, message.headers["sender"], message.headers["x"]) == (b"hello", "ann", "y")
        assert (await phone.message()).headers["message-id"] == message.headers["message-id"]
        await ben.ack(message)


async def test_what_a_client_that_does_not_answer_probes_was_sent_comes_again() -> None:
    async with Cluster(1) as [node], node.connect("ann") as ann:
        async with node.connect("ben", answers_probes=False) as ben:
            await ben.subscribe(INBOX)
            await ann.send("/user/ben/queue/inbox", b"hello")
            assert "redelivered" not in (await ben.message()).headers
        async with node.connect("ben") as ben:
            await ben.subscribe(INBOX)
            assert (await ben.message()).headers["redelivered"] == "true"


async def test_the_clients_of_a_node_that_crashes_lose_their_connection_and_nothing_else() -> None:
    async with Cluster(2) as nodes, nodes[0].connect("ann") as ann:
        ben = await nodes[1].connect("ben").__aenter__()
        await ben.subscribe(INBOX, ack="client")
        await ann.send("/user/ben/queue/inbox", b"hello")
        await nodes[1].crash()
        with pytest.raises(Ended, match="1006"):
            await ben.frame(lambda frame: frame.command == "RECEIPT")
        assert not nodes[1].up
        await nodes[1].start()
        async with nodes[1].connect("ben") as ben:
            await ben.subscribe(INBOX)
            assert (await ben.message()).body == b"hello"


async def test_a_client_that_does_not_read_fills_the_nodes_buffer_and_goes_on_where_it_was() -> None:
    async with Cluster(1) as [node], node.connect("ann") as ann, node.connect("ben") as ben:
        await ben.subscribe(INBOX)
        ben.pipe.reading = False
        for number in range(5):
            await ann.send("/user/ben/queue/inbox", b"%d" % number)
        assert ben.pipe.buffered_bytes > 0
        ben.pipe.reading = True
        assert [(await ben.message()).body for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
        assert ben.pipe.buffered_bytes == 0


async def test_a_node_that_is_closed_says_so_and_a_client_that_is_gone_is_no_longer_there() -> None:
    async with Cluster(1) as [node]:
        ann = await node.connect("ann").__aenter__()
        ben = await node.connect("ben").__aenter__()
        ben.pipe.vanish()
        ann.pipe.cut()
        with pytest.raises(Ended):
            await ann.message()
        await asyncio.sleep(0)
        assert node.node.gauges()["connections"] == 1
        cat = await node.connect("cat").__aenter__()
        await node.stop()
        with pytest.raises(Ended, match="1012 the server is going away"):
            await cat.message()
