"""The Redis engine against the store's contracts: one server, older ones, and a Cluster."""

from collections.abc import Iterator

import pytest
from tests.support.topologies import Cluster
from tests.support.valkey import Valkey

from postroom.store.redis import RedisStore
from postroom.testing.contracts.cursor_store import CursorStoreContract, DurableCursorStoreContract
from postroom.testing.contracts.directory_store import DirectoryStoreContract, MakeDirecting
from postroom.testing.contracts.faults import Outage
from postroom.testing.contracts.log_store import DurableLogStoreContract, LogStoreContract, Make
from postroom.testing.contracts.store_faults import DirectoryFaultContract, Linked, LinkedDirecting, StoreFaultContract
from postroom.testing.contracts.transactions import TransactionContract
from postroom.testing.links import Links


class TestRedisStore(LogStoreContract, CursorStoreContract, DurableLogStoreContract, DurableCursorStoreContract):
    engine = "Valkey 9"

    @pytest.fixture
    def make(self, fresh_url: str) -> Make:
        return lambda clock: RedisStore(fresh_url, clock=clock)

    def test_says_that_it_keeps(self) -> None:
        assert RedisStore("redis://localhost").durable


class TestRedisStoreFaults(StoreFaultContract):
    engine = "Valkey 9"

    @pytest.fixture
    def make(self, own_valkey: Valkey) -> Make:
        return lambda clock: RedisStore(f"{own_valkey.url}?timeout=2", clock=clock)

    @pytest.fixture
    def outage(self, own_valkey: Valkey) -> Outage:
        return own_valkey

    @pytest.fixture
    def linked(self, own_valkey: Valkey) -> Iterator[Linked]:
        with Links(f"{own_valkey.url}?timeout=2") as links:
            yield lambda clock: RedisStore(links.url, clock=clock), links


class TestRedisDirectoryFaults(DirectoryFaultContract):
    engine = "Valkey 9"

    @pytest.fixture
    def make(self, fresh_url: str) -> MakeDirecting:
        return lambda clock: RedisStore(f"{fresh_url}&timeout=2", clock=clock)

    @pytest.fixture
    def linked(self, fresh_url: str) -> Iterator[LinkedDirecting]:
        with Links(f"{fresh_url}&timeout=2") as links:
            yield lambda clock: RedisStore(links.url, clock=clock), links


class TestRedisTransactions(TransactionContract):
    engine = "Valkey 9"

    @pytest.fixture
    def make(self, fresh_url: str) -> Make:
        return lambda clock: RedisStore(fresh_url, clock=clock)


class TestRedisDirectory(DirectoryStoreContract):
    engine = "Valkey 9"

    @pytest.fixture
    def make(self, fresh_url: str) -> MakeDirecting:
        return lambda clock: RedisStore(fresh_url, clock=clock)


class TestRedisStoreAtAUnixSocket(DurableLogStoreContract, DurableCursorStoreContract):
    engine = "Valkey 9"

    @pytest.fixture
    def make(self, unix_url: str) -> Make:
        return lambda clock: RedisStore(unix_url, clock=clock)


class TestRedisDirectoryAtAUnixSocket(DirectoryStoreContract):
    engine = "Valkey 9"

    @pytest.fixture
    def make(self, unix_url: str) -> MakeDirecting:
        return lambda clock: RedisStore(unix_url, clock=clock)


class TestOlderServersStore(LogStoreContract, CursorStoreContract, DurableLogStoreContract, DurableCursorStoreContract):
    engine = "Redis 7, Valkey 8"

    @pytest.fixture
    def make(self, other_url: str) -> Make:
        return lambda clock: RedisStore(other_url, clock=clock)


class TestOlderServersTransactions(TransactionContract):
    engine = "Redis 7, Valkey 8"

    @pytest.fixture
    def make(self, other_url: str) -> Make:
        return lambda clock: RedisStore(other_url, clock=clock)


class TestOlderServersDirectory(DirectoryStoreContract):
    engine = "Redis 7, Valkey 8"

    @pytest.fixture
    def make(self, other_url: str) -> MakeDirecting:
        return lambda clock: RedisStore(other_url, clock=clock)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    servers = Cluster(tmp_path_factory.mktemp("cluster"))
    servers.start()
    yield servers
    servers.close()


@pytest.fixture
def cluster_url(cluster: Cluster, fresh_url: str) -> str:
    """The Cluster, with a prefix that nobody has used."""
    return f"{cluster.url}?{fresh_url.partition('?')[2]}"


class TestRedisClusterStore(LogStoreContract, CursorStoreContract, DurableLogStoreContract, DurableCursorStoreContract):
    engine = "Valkey 9, Cluster"

    @pytest.fixture
    def make(self, cluster_url: str) -> Make:
        return lambda clock: RedisStore(cluster_url, clock=clock)


class TestRedisClusterTransactions(TransactionContract):
    engine = "Valkey 9, Cluster"
    several_logs = False

    @pytest.fixture
    def make(self, cluster_url: str) -> Make:
        return lambda clock: RedisStore(cluster_url, clock=clock)


class TestRedisClusterDirectory(DirectoryStoreContract):
    engine = "Valkey 9, Cluster"

    @pytest.fixture
    def make(self, cluster_url: str) -> MakeDirecting:
        return lambda clock: RedisStore(cluster_url, clock=clock)
