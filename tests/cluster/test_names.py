"""Two nodes with one name: the one that was started later stays."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.client import StompClient
from tests.support.deadline import DEADLINE
from tests.support.server import Server

INBOX = "/user/queue/inbox"
CONFIG = """
[cluster]
lease-seconds = 60
renew-seconds = 0.4
heartbeat-seconds = 0.3
"""

Start = Callable[[str], Server]


@pytest.fixture
def start(tmp_path: Path, fresh_url: str) -> Iterator[Start]:
    """Starts nodes on one store, by name; two may bear the same."""
    started: list[Server] = []

    def start(name: str) -> Server:
        home = tmp_path / f"{len(started)}"
        home.mkdir()
        started.append(Server(home, config=CONFIG, store=fresh_url, options=["--node-id", name]))
        started[-1].start()
        return started[-1]

    yield start
    for server in started:
        server.close()


async def ends(server: Server) -> int:
    return await asyncio.to_thread(server.process.wait, 3 * DEADLINE)


async def test_of_two_with_one_name_the_older_says_so_and_ends(start: Start) -> None:
    old = start("one")
    far = start("two")
    client = await StompClient.connect(old, "ben")
    await client.subscribe(INBOX)
    new = start("one")
    assert await client.ended() == 1012
    assert await ends(old) == 2
    assert "another node with the id one was started later" in old.output(3)
    assert "Traceback" not in old.output(1000)
    async with await StompClient.connect(far, "ann") as ann, await StompClient.connect(new, "ben") as ben:
        await ben.subscribe(INBOX)
        await ann.send("/user/ben/queue/inbox", "hello")
        assert (await ben.message()).text == "hello"
    assert far.metrics()["peers"] == 1
    assert new.process.poll() is None


async def test_an_older_one_that_hung_ends_once_it_wakes(start: Start) -> None:
    old = start("one")
    old.process.send_signal(signal.SIGSTOP)
    new = start("one")
    old.process.send_signal(signal.SIGCONT)
    assert await ends(old) == 2
    assert new.process.poll() is None


async def test_a_node_that_was_killed_comes_back_at_once_under_its_name(start: Start) -> None:
    one, two = start("one"), start("two")
    lost = await StompClient.connect(one, "ben")
    await lost.subscribe(INBOX)
    one.kill()
    one.start()  # its older self has a lease for a minute still
    async with await StompClient.connect(one, "ben") as ben, await StompClient.connect(two, "ann") as ann:
        await ben.subscribe(INBOX)
        await two.reaches("peers", 1)
        await ann.send("/user/ben/queue/inbox", "hello")
        assert (await ben.message()).text == "hello"
        beats = one.metrics()["backplane_received"]
        while one.metrics()["backplane_received"] < beats + 20:
            await asyncio.sleep(0.05)
    assert one.process.poll() is None
    assert "was started later" not in one.output()
    await lost.cut()
