"""PgBouncer before PostgreSQL: what works, and what is said where it does not."""

import asyncio
import itertools
from collections.abc import Callable

import pytest
from tests.support.client import StompClient
from tests.support.cluster import Nodes
from tests.support.pgbouncer import PgBouncer
from tests.support.postgres import Postgres

from postroom import trial
from postroom.backplane.base import Subject
from postroom.backplane.postgres import PostgresBackplane
from postroom.errors import ConfigurationError, StoreUnavailable
from postroom.postgres_link import connect, parse_url
from postroom.postgres_pooling import Pooling, pooling_of
from postroom.store.postgres import PostgresStore
from postroom.testing.contracts.backplane import running
from postroom.testing.contracts.log_store import INBOX, add, bodies, item

_names = itertools.count(1)


def schema() -> str:
    """One that nobody has used."""
    return f"pgb{next(_names)}"


@pytest.mark.parametrize(
    ("mode", "statements", "found"),
    [
        ("session", 0, Pooling.SESSIONS),
        ("session", 100, Pooling.SESSIONS),
        ("transaction", 0, Pooling.TRANSACTIONS),
        ("transaction", 100, Pooling.STATEMENTS),
    ],
)
async def test_what_a_pooler_does_is_found_out(postgres: Postgres, mode: str, statements: int, found: Pooling) -> None:
    with PgBouncer(postgres, mode=mode, statements=statements) as pooler:
        for address, expected in ((pooler.url_of(schema()), found), (postgres.url(schema()), Pooling.NONE)):
            url = parse_url(address)
            line = await connect(url)
            assert await pooling_of(line, url) is expected
            line.close()


async def test_a_pooler_that_forgets_statements_is_refused(postgres: Postgres) -> None:
    with PgBouncer(postgres, mode="transaction") as pooler:
        url = pooler.url_of(schema(), timeout="2")
        with pytest.raises(StoreUnavailable, match="max_prepared_statements"):
            async with PostgresStore(url):
                pass
        report = await trial.try_store(url)
        assert not report.well
        assert "max_prepared_statements" in report.lines[1]


async def test_a_pooler_that_begins_to_pool_transactions_is_named(postgres: Postgres) -> None:
    """What is not found out at the start shows later."""
    with PgBouncer(postgres, mode="session") as pooler:
        async with PostgresStore(pooler.url_of(schema(), timeout="5")) as store:
            await add(store, item(b"1"))
            pooler.kill()
            settings = pooler.folder / "pgbouncer.ini"
            settings.write_text(settings.read_text().replace("= session", "= transaction"))
            await asyncio.to_thread(pooler.start)
            said = ""
            async with asyncio.timeout(30):
                while "max_prepared_statements" not in said:
                    results = await asyncio.gather(
                        store.append([item(b"2")]), *(store.heads([INBOX]) for _ in range(8)), return_exceptions=True
                    )
                    said = " ".join(str(each) for each in results if isinstance(each, StoreUnavailable))


@pytest.mark.parametrize("statements", [0, 100])
async def test_a_backplane_needs_sessions(postgres: Postgres, statements: int) -> None:
    with PgBouncer(postgres, mode="transaction", statements=statements) as pooler:
        url = pooler.url_of(schema(), timeout="2")
        with pytest.raises(ExceptionGroup) as caught:
            async with running(PostgresBackplane(url)) as peer:
                await peer.backplane.subscribe([Subject("all")])
        assert caught.group_contains(ConfigurationError, match="LISTEN needs a session")
        report = await trial.try_backplane(url)
        assert "LISTEN needs a session" in report.lines[1]


async def test_what_is_stored_over_both_ways_is_one(postgres: Postgres) -> None:
    name = schema()
    with PgBouncer(postgres, mode="transaction", statements=100, size=2) as pooler:
        async with PostgresStore(pooler.url_of(name)) as pooled, PostgresStore(postgres.url(name)) as direct:
            for n in range(20):
                await add((pooled, direct)[n % 2], item(b"%d" % n))
            assert await bodies(pooled) == await bodies(direct) == [b"%d" % n for n in range(20)]


async def test_users_of_two_nodes_talk_behind_it(make_nodes: Callable[..., Nodes], postgres: Postgres) -> None:
    name = schema()
    with (
        PgBouncer(postgres, mode="transaction", statements=100, size=4) as transactions,
        PgBouncer(postgres, mode="session") as sessions,
    ):
        one, two = make_nodes(transactions.url_of(name), backplane=sessions.url_of(name)).nodes
        async with await StompClient.connect(one, "ann") as ann:
            await ann.send("/user/ben/queue/inbox", "while you were away")
            async with await StompClient.connect(two, "ben") as ben:
                await ben.subscribe("/user/queue/inbox")
                assert (await ben.message()).text == "while you were away"
                await ann.send("/user/ben/queue/inbox", "now")
                assert (await ben.message()).text == "now"
