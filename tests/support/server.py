"""The real server, as a process."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import psutil
from tests.support.deadline import DEADLINE

_TURN = 0.02  # between two looks at something that has no event of its own


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One `postroom serve --dev`; killed, restarted and looked at.

    Its store is a SQLite file in `folder`, unless `store` names another; `options` go to the command line.
    """

    def __init__(
        self, folder: Path, *, config: str = "", application: str = "", store: str = "", options: Sequence[str] = ()
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.log = folder / "server.log"
        self._config = config
        self._application = application
        self._store = store or f"sqlite:///{folder}/x.db"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._stdin = subprocess.DEVNULL

    @property
    def url(self) -> str:
        """Where STOMP is spoken."""
        return f"ws://127.0.0.1:{self.port}/ws"

    @property
    def http(self) -> str:
        """The server's origin."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running process."""
        assert self._process is not None, "the server was not started"
        return self._process

    # ── life ──────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Start it, and return once it answers."""
        self.launch()
        self.wait_until_healthy()

    def launch(self) -> None:
        """Start it."""
        assert self._process is None or self._process.poll() is not None, "the server runs"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                stdin=self._stdin,
                stdout=log,
                stderr=log,
                env=self._environment(),
                cwd=self.folder,
            )

    def _command(self) -> list[str]:
        command = [sys.executable, "-m", "postroom", "serve"]
        if self._application:
            command.append(self._application)
        command += ["--dev", "--host", "127.0.0.1", "--port", str(self.port), *self._storing(), *self._options]
        if self._config:
            command += ["--config", str(self._written_config())]
        return command

    def _written_config(self) -> Path:
        settings = self.folder / "postroom.toml"
        settings.write_text(self._config, encoding="utf-8")
        return settings

    def _environment(self) -> dict[str, str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")}
        environment["PYTHONPATH"] = os.pathsep.join([str(self.folder), environment.get("PYTHONPATH", "")])
        return environment

    def _storing(self) -> Sequence[str]:
        return ["--store", self._store]

    def wait_until_healthy(self) -> None:
        """Return once it answers."""
        end = time.monotonic() + 2 * DEADLINE
        while not self.healthy():
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.output()}")
            if time.monotonic() > end:
                self.kill()
                raise AssertionError(f"the server does not answer:\n{self.output()}")
            time.sleep(_TURN)

    def kill(self) -> None:
        """SIGKILL: no last words."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(3 * DEADLINE)

    def restart(self) -> None:
        """Kill it, then start it again on the same port and store."""
        self.kill()
        self.start()

    def close(self) -> None:
        """End it, however it is."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    # ── looks ─────────────────────────────────────────────────────────────────────────────────────────

    def healthy(self) -> bool:
        """Whether it answers."""
        try:
            return self.get("/healthz") == "ok\n"
        except (OSError, urllib.error.URLError):
            return False

    def get(self, path: str) -> str:
        """The body of an HTTP answer."""
        with urllib.request.urlopen(self.http + path, timeout=DEADLINE) as answer:
            return str(answer.read().decode())

    def rss(self) -> int:
        """Resident memory, bytes."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def metrics(self) -> dict[str, float]:
        """The counters and gauges at /metrics, without `postroom_` and `_total`."""
        found: dict[str, float] = {}
        for line in self.get("/metrics").splitlines():
            if line.startswith("postroom_"):
                name, _, value = line.partition(" ")
                found[name.removeprefix("postroom_").removesuffix("_total")] = float(value)
        return found

    async def reaches(self, name: str, value: float, *, within: float = DEADLINE) -> None:
        """Return once the metric `name` is `value`."""
        found = await asyncio.to_thread(self._watch, name, value, time.monotonic() + within)
        assert found == value, f"{name} is {found}, not {value}:\n{self.output()}"

    def _watch(self, name: str, value: float, end: float) -> float:
        while (found := self.metrics()[name]) != value and time.monotonic() < end:
            time.sleep(_TURN)
        return found

    def output(self, lines: int = 60) -> str:
        """The end of what it logged."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
