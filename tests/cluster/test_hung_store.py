"""While the store hangs, what clients send waits with them and not in the node's memory."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.client import StompClient
from tests.support.server import Server
from tests.support.valkey import Valkey

CONFIG = """
[limits]
pending-append-bytes = "256KiB"
"""
BODY = "x" * 100_000
COUNT = 100
ROUNDS = 100


@pytest.fixture
def node(tmp_path: Path, own_valkey: Valkey) -> Iterator[Server]:
    server = Server(tmp_path, store=f"{own_valkey.url}?timeout=60", config=CONFIG)
    server.start()
    yield server
    server.close()


async def test_a_client_is_not_read_from_while_the_store_takes_nothing(node: Server, own_valkey: Valkey) -> None:
    async with await StompClient.connect(node, "ann") as ann, await StompClient.connect(node, "ben") as ben:
        await ben.subscribe("/user/queue/inbox")
        await ben.subscribe("/topic/rounds", id="rounds")
        await ann.send("/user/ben/queue/inbox", "first")
        assert (await ben.message()).text == "first"
        own_valkey.pause()

        async def send() -> None:
            for n in range(COUNT):
                await ann.send("/user/ben/queue/inbox", f"{n} {BODY}", receipt=False)

        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(send())
            for n in range(ROUNDS):  # the node reads all the while
                await ben.send("/topic/rounds", f"{n}", receipt=False)
                assert (await ben.message()).text == f"{n}"
            assert not sending.done()
            assert node.metrics()["received"] <= 1 + ROUNDS + 5
            own_valkey.resume()
        assert [int((await ben.message()).text.split()[0]) for _ in range(COUNT)] == [*range(COUNT)]
