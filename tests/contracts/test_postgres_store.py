"""The PostgreSQL engine against the store's contracts."""

import pytest

from postroom.store.postgres import PostgresStore
from postroom.testing.contracts.cursor_store import CursorStoreContract, DurableCursorStoreContract
from postroom.testing.contracts.directory_store import DirectoryStoreContract, MakeDirecting
from postroom.testing.contracts.log_store import DurableLogStoreContract, LogStoreContract, Make
from postroom.testing.contracts.transactions import TransactionContract


class TestPostgresStore(LogStoreContract, CursorStoreContract, DurableLogStoreContract, DurableCursorStoreContract):
    engine = "PostgreSQL"

    @pytest.fixture
    def make(self, postgres_url: str) -> Make:
        return lambda clock: PostgresStore(postgres_url, clock=clock)

    def test_says_that_it_keeps(self) -> None:
        assert PostgresStore("postgresql://localhost/postroom").durable


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
