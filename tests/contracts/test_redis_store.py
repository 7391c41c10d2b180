"""The Redis engine against the store's contracts."""

import pytest

from postroom.store.redis import RedisStore
from postroom.testing.contracts.cursor_store import CursorStoreContract, DurableCursorStoreContract
from postroom.testing.contracts.directory_store import DirectoryStoreContract, MakeDirecting
from postroom.testing.contracts.log_store import DurableLogStoreContract, LogStoreContract, Make


class TestRedisStore(LogStoreContract, CursorStoreContract, DurableLogStoreContract, DurableCursorStoreContract):
    @pytest.fixture
    def make(self, fresh_url: str) -> Make:
        return lambda clock: RedisStore(fresh_url, clock=clock)

    def test_says_that_it_keeps(self) -> None:
        assert RedisStore("redis://localhost").durable


class TestRedisDirectory(DirectoryStoreContract):
    @pytest.fixture
    def make(self, fresh_url: str) -> MakeDirecting:
        return lambda clock: RedisStore(fresh_url, clock=clock)
