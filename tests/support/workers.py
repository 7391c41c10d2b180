"""`postroom serve --workers`: several worker processes and their embedded Valkey, as one server."""

import asyncio
import contextlib
import json
import os
import pty
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil
from tests.support.client import StompClient
from tests.support.deadline import DEADLINE
from tests.support.server import Server

_TURN = 0.02
_SAMPLE = re.compile(r'postroom_(\w+?)(?:_total)?\{worker="([^"]+)"\} (\S+)')


class Workers(Server):
    """`count` workers on the store that nobody names, an embedded Valkey; or on `store`."""

    def __init__(
        self,
        folder: Path,
        *,
        count: int = 2,
        config: str = "",
        application: str = "",
        store: str = "",
        options: Sequence[str] = (),
    ) -> None:
        self.names = [f"node-1-{number}" for number in range(1, count + 1)]
        self._named = ["--store", store] if store else []
        options = ["--workers", str(count), *options]
        super().__init__(folder, config=config, application=application, options=options)

    def _storing(self) -> Sequence[str]:
        return self._named

    def wait_until_healthy(self) -> None:
        """Return once every worker is ready, and knows the others."""
        super().wait_until_healthy()
        self.until(lambda: not any(self.reasons().values()))
        self.until(lambda: all(each["peers"] == len(self.names) - 1 for each in self.by_worker().values()))

    def until(self, what: Callable[[], bool]) -> None:
        """Return once `what` is true."""
        end = time.monotonic() + 2 * DEADLINE
        while not what():
            assert self.process.poll() is None, f"the workers' keeper ended:\n{self.output()}"
            assert time.monotonic() < end, self.output()
            time.sleep(_TURN)

    def reasons(self) -> dict[str, list[str]]:
        """Why each worker is not ready, as /readyz says."""
        found: dict[str, list[str]] = json.loads(self.get("/readyz"))["workers"]
        return found

    def by_worker(self) -> dict[str, dict[str, float]]:
        """The metrics of each worker that answers."""
        found: dict[str, dict[str, float]] = {}
        for name, worker, value in _SAMPLE.findall(self.get("/metrics")):
            if name != "worker_up":
                found.setdefault(worker, {})[name] = float(value)
        return found

    def metrics(self) -> dict[str, float]:
        """The sums over all workers."""
        sums: dict[str, float] = {}
        for each in self.by_worker().values():
            for name, value in each.items():
                sums[name] = sums.get(name, 0.0) + value
        return sums

    # ── the processes ─────────────────────────────────────────────────────────────────────────────────

    def family(self) -> list[psutil.Process]:
        """Everything that it started."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def workers(self) -> Mapping[str, psutil.Process]:
        """The process of each worker that there is now."""
        found = {words[-1]: each for each, words in self._commands() if words[-2:-1] == ["worker"]}
        return {name: found[name] for name in self.names if name in found}

    def engine(self) -> psutil.Process:
        """The embedded Valkey's process."""
        return next(each for each, words in self._commands() if "valkey" in words[0])

    def _commands(self) -> Iterator[tuple[psutil.Process, list[str]]]:
        for each in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                yield each, each.cmdline() or [""]

    async def client_at(self, name: str, login: str) -> StompClient:
        """A client of the worker `name`: connects until it gets there."""
        async with asyncio.timeout(2 * DEADLINE):
            while True:
                client = await StompClient.connect(self, login)
                if client.connected.headers["server"].endswith(name):
                    return client
                await client.cut()


class InATerminal(Workers):
    """Two workers that somebody started at a terminal, where they can be interrupted."""

    def launch(self) -> None:
        """See `Server.launch`."""
        self._keyboard, self._stdin = pty.openpty()
        try:
            super().launch()
        finally:
            os.close(self._stdin)

    def _command(self) -> list[str]:
        return ["setsid", "--ctty", *super()._command()]

    def press_ctrl_c(self) -> None:
        """The terminal sends SIGINT to what runs in its foreground."""
        os.write(self._keyboard, b"\x03")

    def close(self) -> None:
        """See `Server.close`."""
        super().close()
        os.close(self._keyboard)


def gone(family: Sequence[psutil.Process]) -> None:
    """Return once none of them lives."""
    _, alive = psutil.wait_procs(family, timeout=2 * DEADLINE)
    assert alive == []
