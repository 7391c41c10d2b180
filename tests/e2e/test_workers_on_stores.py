"""`postroom serve --workers` on a store that is named: PostgreSQL alone, with NATS beside it, and Valkey."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import NamedTuple

import pytest
from tests.support.client import StompClient
from tests.support.deadline import DEADLINE, SCALE
from tests.support.workers import Workers, gone

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(90 * SCALE)]

INBOX = "/user/queue/inbox"
QUICK = """
drain-seconds = 0.2
[cluster]
lease-seconds = 3
renew-seconds = 0.6
heartbeat-seconds = 0.6
"""


class Arrangement(NamedTuple):
    """`size` workers on `store`, with `carrier` between them, or the store itself."""

    size: int
    store: str
    carrier: str = ""

    def __str__(self) -> str:
        return f"{self.size} on {self.store}" + (f" over {self.carrier}" if self.carrier else "")


ARRANGEMENTS = (Arrangement(3, "postgres"), Arrangement(3, "postgres", "nats"), Arrangement(2, "valkey"))


@pytest.fixture(scope="module", params=ARRANGEMENTS, ids=str)
def arranged(request: pytest.FixtureRequest) -> Arrangement:
    """Each arrangement in turn."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def urls(arranged: Arrangement, request: pytest.FixtureRequest) -> tuple[str, list[str]]:
    """The store's URL, and the options that name the backplane."""
    name = f"workers-{arranged}".replace(" ", "-")
    server = request.getfixturevalue(arranged.store)
    store = server.url(name.replace("-", "_")) if arranged.store == "postgres" else f"{server.url}?prefix={name}"
    if not arranged.carrier:
        return store, []
    return store, ["--backplane", f"{request.getfixturevalue(arranged.carrier).url}?prefix={name}"]


@pytest.fixture(scope="module")
def workers(
    arranged: Arrangement, urls: tuple[str, list[str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workers]:
    """Workers that serve; who ends them starts them again."""
    folder = tmp_path_factory.mktemp("workers")
    store, options = urls
    made = Workers(folder, count=arranged.size, config=QUICK, store=store, options=options)
    made.start()
    yield made
    made.close()


async def test_users_of_all_workers_talk_and_who_was_away_gets_the_rest(workers: Workers) -> None:
    assert len(workers.family()) == len(workers.names), "no Valkey is embedded where a store is named"
    first, *_, last = workers.names
    async with await workers.client_at(first, "ann") as ann:
        async with await workers.client_at(last, "ben") as ben:
            await ben.subscribe(INBOX)
            await ann.subscribe(INBOX)
            await ann.send("/user/ben/queue/inbox", "hello")
            assert (await ben.message()).text == "hello"
            await ben.confirmed()
            await ben.send("/user/ann/queue/inbox", "hello too")
            assert (await ann.message()).text == "hello too"
        for n in range(5):
            await ann.send("/user/ben/queue/inbox", f"away {n}")
        async with await workers.client_at(first, "ben") as ben:
            await ben.subscribe(INBOX)
            assert [each.text for each in await ben.messages(5)] == [f"away {n}" for n in range(5)]
            await ben.confirmed()


async def test_topics_reach_every_worker(workers: Workers) -> None:
    clients = [await workers.client_at(name, f"reader of {name}") for name in workers.names]
    for client in clients:
        await client.subscribe("/topic/news")
    for n, client in enumerate(clients):
        await client.send("/topic/news", str(n))
    for client in clients:
        heard = {(await client.message()).text for _ in clients}
        assert heard == {str(n) for n in range(len(clients))}
        await client.close()


def test_each_worker_is_told_of(workers: Workers) -> None:
    for _ in range(4):  # whichever worker it is
        assert workers.reasons() == {name: [] for name in workers.names}
        assert set(workers.by_worker()) == set(workers.names)


async def test_sigterm_drains_all_and_the_next_start_has_the_messages(workers: Workers) -> None:
    family = workers.family()
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(await workers.client_at(name, name)) for name in workers.names]
        await clients[0].send("/user/dora/queue/inbox", "kept")
        workers.process.send_signal(signal.SIGTERM)
        assert [await client.ended() for client in clients] == [1012] * len(clients)
        assert await asyncio.to_thread(workers.process.wait, 3 * DEADLINE) == 0
    gone(family)
    assert "Traceback" not in workers.output(10_000)
    await asyncio.to_thread(workers.start)
    async with await StompClient.connect(workers, "dora") as dora:
        await dora.subscribe(INBOX)
        assert (await dora.message()).text == "kept"
        await dora.confirmed()


async def test_nothing_outlives_a_keeper_that_is_killed_and_nothing_stored_is_lost(workers: Workers) -> None:
    family = workers.family()
    async with await StompClient.connect(workers, "emil") as emil:
        await emil.send("/user/fred/queue/inbox", "kept")
        workers.kill()
        await emil.ended()
    gone(family)
    await asyncio.to_thread(workers.start)
    async with await StompClient.connect(workers, "fred") as fred:
        await fred.subscribe(INBOX)
        assert (await fred.message()).text == "kept"
        await fred.confirmed()
