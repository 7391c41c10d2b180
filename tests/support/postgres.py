"""A real PostgreSQL, with data of its own in a temporary folder: killed, restarted, paused, restored."""

import asyncio
import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import asyncpg
import psutil
from tests.support.deadline import DEADLINE
from tests.support.services import require
from tests.support.valkey import quiet_port

T = TypeVar("T")

_TURN: Final = 0.02
_ACCOUNT: Final = "postgres"
_USER: Final = "postroom"
_SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "restart_after_crash": "off",
    "log_min_messages": "warning",
}


def find_program(name: str) -> str | None:
    """A program of the server: on PATH, or where Debian has it."""
    found = shutil.which(name)
    if found is None:
        newest = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
        found = str(newest[-1]) if newest else None
    return found


def _as_nobody_special() -> Sequence[str]:
    """The server refuses to run as root."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={_ACCOUNT}", f"--regid={_ACCOUNT}", "--clear-groups"]


@cache
def _fresh_data() -> Path:
    """What initdb makes, once for all servers of this process."""
    folder = Path(tempfile.mkdtemp(prefix="postroom-postgres-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if os.geteuid() == 0:
        shutil.chown(folder, _ACCOUNT, _ACCOUNT)
    program = find_program("initdb")
    assert program is not None
    data = folder / "data"
    command = [program, "-D", str(data), "-U", _USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
    done = subprocess.run(
        [*_as_nobody_special(), *command], capture_output=True, text=True, cwd="/", timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return data


class Postgres:
    """One server on 127.0.0.1. Its data are in a folder of its own, which goes with it. `tls`: certificate and key."""

    def __init__(self, *, settings: dict[str, str] | None = None, tls: tuple[Path, Path] | None = None) -> None:
        require("postgres", found=find_program("postgres") is not None, install="apt-get install postgresql")
        self.port = quiet_port()
        self._settings = {**_SETTINGS, **(settings or {})}
        self._folder = Path(tempfile.mkdtemp(prefix="postroom-postgres-"))
        self._folder.chmod(0o755)
        self.data = self._folder / "data"
        self.log = self._folder / "log"
        self._tls = tls
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def url(self, schema: str = "postroom", port: int | None = None, **options: str) -> str:
        """Where it listens; `port` may be that of a proxy before it."""
        given = "".join(f"&{name.replace('_', '-')}={value}" for name, value in options.items())
        return f"postgresql://{_USER}@127.0.0.1:{port or self.port}/postgres?schema={schema}&sslmode=disable{given}"

    # ── life ──────────────────────────────────────────────────────────────────────────────────────────

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process that has started all others."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and return once it answers."""
        assert not self.running, "PostgreSQL runs"
        if not self.data.exists():
            self._initialize()
        program = find_program("postgres")
        assert program is not None
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        command = [*_as_nobody_special(), program, "-D", str(self.data), "-p", str(self.port), "-k", "", *options]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")
        try:
            self.wait_ready()
        except BaseException:
            self.close()
            raise

    def _initialize(self) -> None:
        self._copy(_fresh_data(), self.data)
        if self._tls is not None:
            for source, name in zip(self._tls, ("server.crt", "server.key"), strict=True):
                file = self.data / name  # where the server looks for them
                file.write_bytes(source.read_bytes())
                file.chmod(0o600)
                shutil.chown(file, self.data.owner(), self.data.group())
            self._settings["ssl"] = "on"

    def wait_ready(self, *, within: float = 3 * DEADLINE) -> None:
        """Return once it answers."""
        end = time.monotonic() + within
        while True:
            assert self._process is not None
            assert self.running, f"PostgreSQL ended with {self._process.returncode}:\n{self.output()}"
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                self.query("SELECT 1")
                return
            assert time.monotonic() < end, f"PostgreSQL does not answer:\n{self.output()}"
            time.sleep(_TURN)

    def kill(self) -> None:
        """SIGKILL for all its processes, paused or not; once this returns they are gone."""
        assert self._process is not None
        family = self._family()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait(DEADLINE)
        end = time.monotonic() + DEADLINE
        while any(_lives(process) for process in family):
            assert time.monotonic() < end, "processes of PostgreSQL outlive SIGKILL"
            time.sleep(_TURN)

    def stop(self) -> None:
        """A fast shutdown: it writes what it has, and ends."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self.resume()
        self._process.wait(3 * DEADLINE)

    def restart(self) -> None:
        """Kill it, then start it again on the same port and data."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """SIGSTOP for all its processes: connections are taken by the kernel, and nothing is said."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End it, however it is, and remove its data."""
        if self.running:
            self.kill()
        # Thousands of files, for which no test need wait.
        subprocess.run(["sh", "-c", 'rm -rf "$0" &', str(self._folder)], check=True, timeout=DEADLINE)

    def _family(self) -> list[psutil.Process]:
        assert self._process is not None
        try:
            parent = psutil.Process(self._process.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _signal(self, number: signal.Signals) -> None:
        for process in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def standby(self) -> "Postgres":
        """A server that follows this one, started."""
        program = find_program("pg_basebackup")
        assert program is not None
        other = Postgres()
        if os.geteuid() == 0:
            shutil.chown(other._folder, _ACCOUNT, _ACCOUNT)
        source = ["-h", "127.0.0.1", "-p", str(self.port), "-U", _USER, "-D", str(other.data), "-R", "-c", "fast"]
        done = subprocess.run(
            [*_as_nobody_special(), program, *source], capture_output=True, text=True, cwd="/", timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        other.start()
        return other

    # ── its past ──────────────────────────────────────────────────────────────────────────────────────

    def save(self) -> Path:
        """Stop it, copy its data, and start it again; the copy."""
        self.stop()
        copy = self._folder / f"copy-{time.monotonic_ns()}"
        self._copy(self.data, copy)
        self.start()
        return copy

    def restore(self, copy: Path) -> None:
        """Stop it, and start it again on a copy of its data made before."""
        self.stop()
        shutil.rmtree(self.data)
        self._copy(copy, self.data)
        self.start()

    def _copy(self, source: Path, target: Path) -> None:
        subprocess.run(["cp", "-a", str(source), str(target)], check=True, timeout=60)

    # ── looks ─────────────────────────────────────────────────────────────────────────────────────────

    def query(self, statement: str, *arguments: object, user: str = _USER) -> list[Any]:
        """The rows of one statement."""

        async def ask() -> list[Any]:
            connection = await asyncpg.connect(
                host="127.0.0.1", port=self.port, user=user, database="postgres", ssl=False, timeout=5
            )
            try:
                return await connection.fetch(statement, *arguments)
            finally:
                await connection.close()

        return _in_a_thread(ask)

    def output(self) -> str:
        """What it wrote to its log."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


def _lives(process: psutil.Process) -> bool:
    # Where nobody takes orphans in they stay zombies, which hold nothing.
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def _in_a_thread(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    # The test may have a loop of its own.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(work())).result()
