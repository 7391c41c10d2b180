"""The memory engine against the store's contracts."""

import pytest

from postroom.store.memory import MemoryStore
from postroom.testing.contracts.cursor_store import CursorStoreContract
from postroom.testing.contracts.directory_store import DirectoryStoreContract, MakeDirecting
from postroom.testing.contracts.log_store import LogStoreContract, Make
from postroom.testing.contracts.transactions import TransactionContract


class TestMemoryStore(LogStoreContract, CursorStoreContract):
    engine = "memory"

    @pytest.fixture
    def make(self) -> Make:
        return lambda clock: MemoryStore("memory:", clock=clock)

    def test_says_that_it_forgets(self) -> None:
        assert not MemoryStore("memory:").durable


class TestMemoryTransactions(TransactionContract):
    engine = "memory"

    @pytest.fixture
    def make(self) -> Make:
        return lambda clock: MemoryStore("memory:", clock=clock)


class TestMemoryDirectory(DirectoryStoreContract):
    engine = "memory"

    @pytest.fixture
    def make(self) -> MakeDirecting:
        return lambda clock: MemoryStore("memory:", clock=clock)
