"""The Redis engine against the backplane's contract."""

import pytest

from postroom.backplane.redis import RedisBackplane
from postroom.testing.contracts.backplane import BackplaneContract, Make


class TestRedisBackplane(BackplaneContract):
    @pytest.fixture
    def make(self, fresh_url: str) -> Make:
        return lambda: RedisBackplane(fresh_url)


class TestRedisAtAUnixSocket(BackplaneContract):
    @pytest.fixture
    def make(self, unix_url: str) -> Make:
        return lambda: RedisBackplane(unix_url)
