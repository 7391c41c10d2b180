"""Valkey behind Sentinel, and as a Cluster: real processes that fail over, and lose what no replica has."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

from redis.crc import key_slot
from tests.support.deadline import DEADLINE
from tests.support.valkey import COPIED, Valkey, until

_SLOTS: Final = 16_384


class Sentinels:
    """A primary, a replica, and three sentinels that promote the replica.

    A sentinel takes a server for down after `down_after_ms`; twice `failover_timeout_ms` after a fail-over it may begin
    the next.
    """

    SERVICE: Final = "mymaster"

    def __init__(
        self,
        folder: Path,
        *,
        binary: str | Path | None = None,
        down_after_ms: int = 1000,
        failover_timeout_ms: int = 3000,
        extra: Sequence[str] = (),
    ) -> None:
        self.servers = [Valkey(folder / name, binary=binary, extra=extra, settings=COPIED) for name in ("one", "two")]
        self.sentinels = [Valkey(folder / f"sentinel-{n}", binary=binary, sentinel=True) for n in range(3)]
        self._down_after_ms = down_after_ms
        self._failover_timeout_ms = failover_timeout_ms

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where the sentinels are, and the name of what they watch."""
        return f"redis+sentinel://{_hosts(self.sentinels)}/{self.SERVICE}"

    def start(self) -> None:
        """Start all five, and return once the replica could be promoted."""
        first, second = self.servers
        try:
            first.start()
            second.start()
            second.command("REPLICAOF", "127.0.0.1", first.port)
            second.command("CONFIG", "REWRITE")
            second.wait_linked()
            for sentinel in self.sentinels:
                self._watch(sentinel, first.port)
            self.wait_ready()
        except BaseException:
            self.close()
            raise

    def _watch(self, sentinel: Valkey, port: int) -> None:
        sentinel.folder.mkdir(parents=True, exist_ok=True)
        (sentinel.folder / "sentinel.conf").write_text(
            f"port {sentinel.port}\nbind 127.0.0.1\ndir {sentinel.folder}\n"
            f"sentinel monitor {self.SERVICE} 127.0.0.1 {port} 2\n"
            f"sentinel down-after-milliseconds {self.SERVICE} {self._down_after_ms}\n"
            f"sentinel failover-timeout {self.SERVICE} {self._failover_timeout_ms}\n",
            encoding="utf-8",
        )
        sentinel.start()
        # By itself it looks every 10 s, and takes as long to see what came back.
        sentinel.command("SENTINEL", "DEBUG", "INFO-PERIOD", 500, "PUBLISH-PERIOD", 500)

    @property
    def primary(self) -> Valkey:
        """The server that most of the running sentinels name; they go on naming a dead one until the fail-over."""
        ports = Counter(self._named(sentinel) for sentinel in _running(self.sentinels))
        ((port, _),) = ports.most_common(1)
        return next(server for server in self.servers if server.port == port)

    def primary_of(self, key: str | bytes) -> Valkey:
        """The primary, which has every key."""
        return self.primary

    @property
    def replica(self) -> Valkey:
        """The other server."""
        primary = self.primary
        return next(server for server in self.servers if server is not primary)

    def kill_primary(self) -> Valkey:
        """SIGKILL to the primary, which is returned."""
        primary = self.primary
        primary.kill()
        return primary

    def wait_for_failover(self, old: Valkey, *, within: float = 4 * DEADLINE) -> Valkey:
        """The new primary, once every running sentinel names it instead of `old`, and it takes writes."""
        (new,) = (server for server in self.servers if server is not old)

        def done() -> bool:
            return new.is_primary() and all(self._named(each) == new.port for each in _running(self.sentinels))

        until(done, lambda: f"the sentinels did not fail over:\n{self.output()}", within=within)
        return new

    def wait_ready(self, *, within: float = 4 * DEADLINE) -> None:
        """Return once every running sentinel knows the others and a replica that it could promote."""

        def ready() -> bool:
            return self.replica.is_linked() and all(self._content(sentinel) for sentinel in _running(self.sentinels))

        until(ready, lambda: f"the sentinels are not ready:\n{self.output()}", within=within)

    def _named(self, sentinel: Valkey) -> int:
        return int(sentinel.raw("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.SERVICE)[1])

    def _content(self, sentinel: Valkey) -> bool:
        primary = _pairs(sentinel.raw("SENTINEL", "MASTER", self.SERVICE))
        replicas = [_pairs(each) for each in sentinel.raw("SENTINEL", "REPLICAS", self.SERVICE)]
        return (
            primary[b"flags"] == b"master"
            and int(primary[b"num-other-sentinels"]) >= len(_running(self.sentinels)) - 1
            and [(each[b"flags"], each[b"master-link-status"]) for each in replicas] == [(b"slave", b"ok")]
        )

    def close(self) -> None:
        """End everything, the sentinels first."""
        for each in (*self.sentinels, *self.servers):
            each.close()

    def output(self, lines: int = 15) -> str:
        """The ends of what all of them logged."""
        return _outputs((*self.servers, *self.sentinels), lines)


class Cluster:
    """Three primaries, which are the first three of `servers`, with one replica each, the last three.

    Slots whose primary is gone do not stop the others, unless `extra` has `--cluster-require-full-coverage yes`.
    """

    def __init__(
        self, folder: Path, *, binary: str | Path | None = None, node_timeout_ms: int = 2000, extra: Sequence[str] = ()
    ) -> None:
        options = ["--cluster-enabled", "yes", "--cluster-node-timeout", str(node_timeout_ms)]
        options += ["--cluster-require-full-coverage", "no", *extra]
        self.servers = [Valkey(folder / f"c{n}", binary=binary, extra=options, settings=COPIED) for n in range(6)]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where the first three are."""
        return f"redis+cluster://{_hosts(self.servers[:3])}"

    def start(self) -> None:
        """Start all six, make them a Cluster, and return once every primary could be replaced."""
        try:
            for server in self.servers:
                server.start()
            self._form()
            self.wait_ready()
        except BaseException:
            self.close()
            raise

    def _form(self) -> None:
        primaries, replicas = self.servers[:3], self.servers[3:]
        for n, server in enumerate(self.servers):
            server.command("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
            for other in self.servers[:n]:
                server.command("CLUSTER", "MEET", "127.0.0.1", other.port)
        for n, server in enumerate(primaries):
            server.command("CLUSTER", "ADDSLOTSRANGE", n * _SLOTS // 3, (n + 1) * _SLOTS // 3 - 1)
        ids = [server.raw("CLUSTER", "MYID") for server in self.servers]

        def met() -> bool:
            nodes = [server.raw("CLUSTER", "NODES") for server in self.servers]
            return all(each in known and b"handshake" not in known for known in nodes for each in ids)

        until(met, lambda: f"the servers do not meet:\n{self.output()}", within=3 * DEADLINE)
        for replica, primary in zip(replicas, ids[:3], strict=True):
            replica.command("CLUSTER", "REPLICATE", primary)

    def wait_ready(self, *, within: float = 4 * DEADLINE) -> None:
        """Return once all running servers agree: all slots are served, and every replica has its primary's data."""
        until(self._agreed, lambda: f"the Cluster is not ready:\n{self.output()}", within=within)

    def _agreed(self) -> bool:
        running = _running(self.servers)
        primaries = {server.port for server in running if server.is_primary()}
        if not all(server.port in primaries or server.is_linked() for server in running):
            return False
        views = [_slots(server) for server in running]
        copies = len(running) - len(primaries)
        return all(
            b"cluster_state:ok" in server.raw("CLUSTER", "INFO")
            and {owner for owner, _ in view.values()} == primaries
            and sum(last - first + 1 for first, last in view) == _SLOTS
            and len({port for _, replicas in view.values() for port in replicas}) == copies
            for server, view in zip(running, views, strict=True)
        )

    def primary_of(self, key: str | bytes) -> Valkey:
        """The running server that says it owns the slot of `key`."""
        slot = key_slot(key.encode() if isinstance(key, str) else key)
        for server in _running(self.servers):
            for (first, last), (owner, _) in _slots(server).items():
                if first <= slot <= last and owner == server.port:
                    return server
        raise AssertionError(f"nobody owns slot {slot}:\n{self.output()}")

    def wait_for_failover(self, old: Valkey, *, within: float = 4 * DEADLINE) -> None:
        """Return once all running servers know that other servers serve all the slots, without `old`."""

        def gone(server: Valkey) -> bool:
            view = _slots(server)
            return (
                b"cluster_state:ok" in server.raw("CLUSTER", "INFO")
                and sum(last - first + 1 for first, last in view) == _SLOTS
                and all(owner != old.port for owner, _ in view.values())
            )

        def done() -> bool:
            return all(gone(server) for server in _running(self.servers) if server is not old)

        until(done, lambda: f"the Cluster did not fail over:\n{self.output()}", within=within)

    def close(self) -> None:
        """End everything."""
        for server in self.servers:
            server.close()

    def output(self, lines: int = 15) -> str:
        """The ends of what all of them logged."""
        return _outputs(self.servers, lines)


def _running(servers: Sequence[Valkey]) -> list[Valkey]:
    return [server for server in servers if server.running]


def _hosts(servers: Sequence[Valkey]) -> str:
    return ",".join(f"127.0.0.1:{server.port}" for server in servers)


def _outputs(servers: Sequence[Valkey], lines: int) -> str:
    return "\n".join(f"── {server.folder.name}, {server.port}\n{server.output(lines)}" for server in servers)


def _pairs(flat: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _slots(server: Valkey) -> dict[tuple[int, int], tuple[int, list[int]]]:
    """As `server` sees it: first and last slot, the port of their primary, those of its replicas."""
    return {
        (first, last): (int(primary[1]), [int(replica[1]) for replica in replicas])
        for first, last, primary, *replicas in server.raw("CLUSTER", "SLOTS")
    }
