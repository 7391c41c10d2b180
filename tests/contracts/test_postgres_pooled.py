"""PostgreSQL behind PgBouncer: the store over pooled transactions, the backplane over pooled sessions."""

import itertools
from collections.abc import Iterator

import pytest
from tests.support.pgbouncer import PgBouncer
from tests.support.postgres import Postgres

from postroom.backplane.postgres import PostgresBackplane
from postroom.store.postgres import PostgresStore
from postroom.testing.contracts.backplane import BackplaneContract
from postroom.testing.contracts.backplane import Make as MakeBackplane
from postroom.testing.contracts.directory_store import DirectoryStoreContract, MakeDirecting
from postroom.testing.contracts.faults import Outage
from postroom.testing.contracts.log_store import DurableLogStoreContract, LogStoreContract, Make
from postroom.testing.contracts.store_faults import StoreFaultContract

_names = itertools.count(1)


@pytest.fixture(scope="module")
def transactions(postgres: Postgres) -> Iterator[PgBouncer]:
    """It takes the server away after each transaction, and has fewer servers than there are connections."""
    with PgBouncer(postgres, mode="transaction", statements=100, size=3) as pooler:
        yield pooler


@pytest.fixture(scope="module")
def sessions(postgres: Postgres) -> Iterator[PgBouncer]:
    """The system's."""
    with PgBouncer(postgres, mode="session") as pooler:
        yield pooler


@pytest.fixture
def url(transactions: PgBouncer) -> str:
    """The store, in a schema that nobody has used."""
    return transactions.url_of(f"pooled{next(_names)}", timeout="2")


@pytest.fixture
def backplane_url(sessions: PgBouncer) -> str:
    """The backplane, in a schema that nobody has used."""
    return sessions.url_of(f"pooled{next(_names)}", timeout="2")


class TestPooledStore(LogStoreContract, DurableLogStoreContract):
    engine = "PostgreSQL, PgBouncer"

    @pytest.fixture
    def make(self, url: str) -> Make:
        return lambda clock: PostgresStore(url, clock=clock)


class TestPooledDirectory(DirectoryStoreContract):
    engine = "PostgreSQL, PgBouncer"

    @pytest.fixture
    def make(self, url: str) -> MakeDirecting:
        return lambda clock: PostgresStore(url, clock=clock)


class TestPooledStoreFaults(StoreFaultContract):
    engine = "PostgreSQL, PgBouncer"

    @pytest.fixture
    def make(self, url: str) -> Make:
        return lambda clock: PostgresStore(url, clock=clock)

    @pytest.fixture
    def outage(self, transactions: PgBouncer) -> Outage:
        return transactions


class TestPooledBackplane(BackplaneContract):
    engine = "PostgreSQL, PgBouncer"

    @pytest.fixture
    def make(self, backplane_url: str) -> MakeBackplane:
        return lambda: PostgresBackplane(backplane_url)

    @pytest.fixture
    def outage(self, sessions: PgBouncer) -> Outage:
        return sessions
