"""The Redis engine against the backplane's contract."""

from collections.abc import Iterator

import pytest
from tests.support.topologies import Cluster
from tests.support.valkey import Valkey

from postroom.backplane.redis import RedisBackplane
from postroom.testing.contracts.backplane import BackplaneContract, Linked, Make
from postroom.testing.contracts.faults import Outage
from postroom.testing.links import Links


class TestRedisBackplane(BackplaneContract):
    engine = "Valkey 9"

    @pytest.fixture
    def make(self, fresh_url: str) -> Make:
        return lambda: RedisBackplane(f"{fresh_url}&timeout=2")

    @pytest.fixture
    def outage(self, valkey: Valkey) -> Outage:
        return valkey

    @pytest.fixture
    def linked(self, fresh_url: str) -> Iterator[Linked]:
        with Links(f"{fresh_url}&timeout=2") as links:
            yield lambda: RedisBackplane(links.url), links


class TestRedisAtAUnixSocket(BackplaneContract):
    engine = "Valkey 9"

    @pytest.fixture
    def make(self, unix_url: str) -> Make:
        return lambda: RedisBackplane(unix_url)


class TestOlderServersBackplane(BackplaneContract):
    engine = "Redis 7, Valkey 8"

    @pytest.fixture
    def make(self, other_url: str) -> Make:
        return lambda: RedisBackplane(f"{other_url}&timeout=2")

    @pytest.fixture
    def outage(self, other_valkey: Valkey) -> Outage:
        return other_valkey


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    servers = Cluster(tmp_path_factory.mktemp("cluster"))
    servers.start()
    yield servers
    servers.close()


class TestRedisClusterBackplane(BackplaneContract):
    engine = "Valkey 9, Cluster"

    @pytest.fixture
    def make(self, cluster: Cluster, fresh_url: str) -> Make:
        return lambda: RedisBackplane(f"{cluster.url}?{fresh_url.partition('?')[2]}&timeout=2")
