"""Valkey behind Sentinel, and as a Cluster: real processes that fail over."""

import time
from collections.abc import Callable
from pathlib import Path

import redis
from redis.crc import key_slot
from tests.support.deadline import DEADLINE
from tests.support.server import free_port
from tests.support.valkey import Valkey

_TURN = 0.05
_SLOTS = 16384


def until(what: Callable[[], bool], said: str, *, within: float = 3 * DEADLINE) -> None:
    """Return once `what` is true."""
    end = time.monotonic() + within
    while True:
        try:
            if what():
                return
        except redis.RedisError:
            pass
        assert time.monotonic() < end, said
        time.sleep(_TURN)


class Sentinels:
    """A primary, a replica and three sentinels."""

    SERVICE = "mymaster"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.primary = Valkey(folder / "one")
        self.replica = Valkey(folder / "two")
        self._sentinels = [Valkey(folder / f"sentinel-{n}", sentinel=True) for n in range(3)]

    @property
    def url(self) -> str:
        """Where the sentinels are."""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self._sentinels)
        return f"redis+sentinel://{hosts}/{self.SERVICE}"

    def start(self, *, copied_from: int | None = None) -> None:
        """Start everything; the replica copies from the port `copied_from`, or from the primary itself."""
        self.primary.start()
        self.replica.start()
        self.replica.command("REPLICAOF", "127.0.0.1", copied_from or self.primary.port)
        until(lambda: b"master_link_status:up" in self.replica.info("replication"), "the replica does not copy")
        for sentinel in self._sentinels:
            sentinel.folder.mkdir(exist_ok=True)
            (sentinel.folder / "sentinel.conf").write_text(
                f"port {sentinel.port}\nbind 127.0.0.1\n"
                f"sentinel monitor {self.SERVICE} 127.0.0.1 {self.primary.port} 2\n"
                f"sentinel down-after-milliseconds {self.SERVICE} 1000\n"
                f"sentinel failover-timeout {self.SERVICE} 3000\n",
                encoding="utf-8",
            )
            sentinel.start()
        until(self._all_known, "the sentinels do not find one another")

    def _all_known(self) -> bool:
        for sentinel in self._sentinels:
            (line,) = [x for x in sentinel.info("sentinel").splitlines() if x.startswith(b"master0:")]
            if b"slaves=1" not in line or b"sentinels=3" not in line:
                return False
        return True

    def promoted(self) -> bool:
        """Whether the replica is the primary now."""
        return b"role:master" in self.replica.info("replication")

    def close(self) -> None:
        """End everything."""
        for each in (*self._sentinels, self.primary, self.replica):
            each.close()


class ValkeyCluster:
    """Three primaries with a replica each."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        options = [
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "2000",
            "--cluster-require-full-coverage",
            "no",
        ]
        # The bus listens at the port and 10,000.
        self.servers = [Valkey(folder / f"c{n}", port=_low_port(), extra=options) for n in range(6)]

    @property
    def url(self) -> str:
        """Where the first three are."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers[:3])

    def start(self) -> None:
        """Start them, and make them a Cluster."""
        for server in self.servers:
            server.start()
        first, *others = self.servers
        for other in others:
            first.command("CLUSTER", "MEET", "127.0.0.1", other.port)
        for n, server in enumerate(self.servers[:3]):
            server.command("CLUSTER", "ADDSLOTSRANGE", n * _SLOTS // 3, (n + 1) * _SLOTS // 3 - 1)
        ids = [server.raw("CLUSTER", "MYID") for server in self.servers]
        until(lambda: all(self._knows(server, ids) for server in self.servers), "the servers do not meet")
        for n, server in enumerate(self.servers[3:]):
            server.command("CLUSTER", "REPLICATE", ids[n])
        until(lambda: all(self._ready(server) for server in self.servers), "the Cluster does not form")

    @staticmethod
    def _knows(server: Valkey, ids: list[bytes]) -> bool:
        nodes = server.raw("CLUSTER", "NODES")
        return all(each in nodes for each in ids)

    @staticmethod
    def _ready(server: Valkey) -> bool:
        return b"cluster_state:ok" in server.raw("CLUSTER", "INFO")

    def primary_of(self, key: str) -> Valkey:
        """The server that owns a key's slot."""
        slot = key_slot(key.encode())
        for server in self.servers:
            if server.process.poll() is None and b"role:master" in server.info("replication"):
                for entry in server.raw("CLUSTER", "SLOTS"):
                    if entry[0] <= slot <= entry[1] and int(entry[2][1]) == server.port:
                        return server
        raise AssertionError(f"nobody owns slot {slot}")

    def close(self) -> None:
        """End everything."""
        for server in self.servers:
            server.close()


def _low_port() -> int:
    while (port := free_port()) > 55_000:
        pass
    return port
