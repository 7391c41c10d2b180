"""The PostgreSQL engine against the store's contracts."""

import itertools
from collections.abc import Iterator

import pytest
from tests.support.postgres import Postgres

from postroom.store.postgres import PostgresStore
from postroom.testing.contracts.cursor_store import CursorStoreContract, DurableCursorStoreContract
from postroom.testing.contracts.directory_store import DirectoryStoreContract, MakeDirecting
from postroom.testing.contracts.faults import Outage
from postroom.testing.contracts.log_store import DurableLogStoreContract, LogStoreContract, Make
from postroom.testing.contracts.store_faults import DirectoryFaultContract, Linked, LinkedDirecting, StoreFaultContract
from postroom.testing.contracts.transactions import TransactionContract
from postroom.testing.links import Links

_names = itertools.count(1)


class TestPostgresStore(LogStoreContract, CursorStoreContract, DurableLogStoreContract, DurableCursorStoreContract):
    engine = "PostgreSQL"

    @pytest.fixture
    def make(self, postgres_url: str) -> Make:
        return lambda clock: PostgresStore(postgres_url, clock=clock)

    def test_says_that_it_keeps(self) -> None:
        assert PostgresStore("postgresql://localhost/postroom").durable


@pytest.fixture(scope="module")
def hurt() -> Iterator[Postgres]:
    """One that only these tests hurt."""
    with Postgres() as server:
        yield server


class TestPostgresStoreFaults(StoreFaultContract):
    engine = "PostgreSQL"

    @pytest.fixture
    def url(self, hurt: Postgres) -> str:
        return hurt.url(f"t{next(_names)}", timeout="2")

    @pytest.fixture
    def make(self, url: str) -> Make:
        return lambda clock: PostgresStore(url, clock=clock)

    @pytest.fixture
    def outage(self, hurt: Postgres) -> Outage:
        return hurt

    @pytest.fixture
    def linked(self, url: str) -> Iterator[Linked]:
        with Links(url) as links:
            yield lambda clock: PostgresStore(links.url, clock=clock), links


class TestPostgresDirectoryFaults(DirectoryFaultContract):
    engine = "PostgreSQL"

    @pytest.fixture
    def make(self, postgres_url: str) -> MakeDirecting:
        return lambda clock: PostgresStore(f"{postgres_url}&timeout=2", clock=clock)

    @pytest.fixture
    def linked(self, postgres_url: str) -> Iterator[LinkedDirecting]:
        with Links(f"{postgres_url}&timeout=2") as links:
            yield lambda clock: PostgresStore(links.url, clock=clock), links


class TestPostgresDirectory(DirectoryStoreContract):
    engine = "PostgreSQL"

    @pytest.fixture
    def make(self, postgres_url: str) -> MakeDirecting:
        return lambda clock: PostgresStore(postgres_url, clock=clock)


class TestPostgresTransactions(TransactionContract):
    engine = "PostgreSQL"

    @pytest.fixture
    def make(self, postgres_url: str) -> Make:
        return lambda clock: PostgresStore(postgres_url, clock=clock)
