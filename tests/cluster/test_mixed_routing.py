"""Two nodes whose `routing` differs: nothing stored is lost, and both say that something is wrong."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.client import StompClient
from tests.support.server import Server

CONFIG = """
[cluster]
heartbeat-seconds = 0.3
reconcile-seconds = 1
"""


@pytest.fixture
def mixed(tmp_path: Path, fresh_url: str) -> Iterator[list[Server]]:
    servers = []
    for routing in ("subject", "directory"):
        (tmp_path / routing).mkdir()
        options = ["--node-id", f"by-{routing}", "--routing", routing]
        servers.append(Server(tmp_path / routing, config=CONFIG, store=fresh_url, options=options))
    for server in servers:
        server.start()
    yield servers
    for server in servers:
        server.close()


async def test_each_says_that_the_other_has_another_routing(mixed: list[Server]) -> None:
    one, two = mixed
    for server, other in ((one, "directory"), (two, "subject")):
        await server.reaches("peers_of_other_routing", 1)
        said = [line for line in server.output().splitlines() if "has another routing" in line]
        assert len(said) == 1
        assert f"by-{other}" in said[0]
    async with await StompClient.connect(one, "ann") as ann, await StompClient.connect(two, "ben") as ben:
        await ben.subscribe("/user/queue/inbox")
        await ann.send("/user/ben/queue/inbox", "hello")
        assert (await ben.message()).text == "hello"
    one.stop()
    await two.reaches("peers_of_other_routing", 0)
