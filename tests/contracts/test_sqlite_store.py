"""The SQLite engine against the store's contracts."""

from pathlib import Path

import pytest

from postroom.store.sqlite import SQLiteStore
from postroom.testing.contracts.cursor_store import CursorStoreContract, DurableCursorStoreContract
from postroom.testing.contracts.log_store import DurableLogStoreContract, LogStoreContract, Make
from postroom.testing.contracts.transactions import TransactionContract


class TestSQLiteStore(LogStoreContract, CursorStoreContract, DurableLogStoreContract, DurableCursorStoreContract):
    engine = "SQLite"

    @pytest.fixture
    def make(self, tmp_path: Path) -> Make:
        return lambda clock: SQLiteStore(f"sqlite:///{tmp_path}/data/x.db", clock=clock)

    def test_says_that_it_keeps(self) -> None:
        assert SQLiteStore("sqlite:").durable


class TestSQLiteTransactions(TransactionContract):
    engine = "SQLite"

    @pytest.fixture
    def make(self, tmp_path: Path) -> Make:
        return lambda clock: SQLiteStore(f"sqlite:///{tmp_path}/data/x.db", clock=clock)
