"""Several nodes behind nginx on one store: the whole looks to a test like one server."""

import asyncio
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from tests.support.deadline import DEADLINE
from tests.support.nginx import Nginx
from tests.support.server import Server

_TURN = 0.02


class Nodes(Server):
    """`count` nodes over the store at `store`, or each over its own way to it; so too with `backplane`.

    `url`, `port` and `http` are those of the nginx before them.

    What is done to the server is done to every node.
    """

    def __init__(
        self,
        folder: Path,
        store: str | Sequence[str],
        *,
        count: int = 2,
        config: str = "",
        application: str = "",
        routing: str = "directory",
        backplane: str | Sequence[str] = "",
        options: Sequence[str] = (),
    ) -> None:
        super().__init__(folder)
        stores = [store] * count if isinstance(store, str) else store
        carriers = [backplane] * len(stores) if isinstance(backplane, str) else backplane
        self.nodes: list[Server] = []
        for number, (way, carrier) in enumerate(zip(stores, carriers, strict=True), 1):
            home = folder / f"n{number}"
            home.mkdir()
            named = ["--node-id", f"n{number}", "--routing", routing, *options]
            if carrier:
                named += ["--backplane", carrier]
            self.nodes.append(Server(home, config=config, application=application, store=way, options=named))
        self._nginx = Nginx(folder, [node.port for node in self.nodes])
        self.port = self._nginx.port
        self._started = False

    def launch(self) -> None:
        """Start every node, and nginx."""
        for node in self.nodes:
            node.launch()
        if not self._started:
            self._nginx.start()
            self._started = True

    def wait_until_healthy(self) -> None:
        """Return once every node answers, and knows the others."""
        for node in self.nodes:
            node.wait_until_healthy()
        end = time.monotonic() + DEADLINE
        while any(node.metrics()["peers"] < len(self.nodes) - 1 for node in self.nodes):
            if time.monotonic() > end:
                raise AssertionError(f"the nodes do not find one another:\n{self.output()}")
            time.sleep(_TURN)

    def kill(self) -> None:
        """SIGKILL to every node."""
        for node in self.nodes:
            node.kill()

    def stop(self) -> int:
        """SIGTERM to every node; the highest exit code."""
        for node in self.nodes:
            node.process.send_signal(signal.SIGTERM)
        return max(node.process.wait(3 * DEADLINE) for node in self.nodes)

    def close(self) -> None:
        """End everything."""
        for node in self.nodes:
            node.close()
        self._nginx.close()

    def metrics(self) -> dict[str, float]:
        """The sums over all nodes."""
        sums: dict[str, float] = {}
        for node in self.nodes:
            for name, value in node.metrics().items():
                sums[name] = sums.get(name, 0.0) + value
        return sums

    def rss(self) -> int:
        """Resident memory of all nodes, bytes."""
        return sum(node.rss() for node in self.nodes)

    def output(self, lines: int = 60) -> str:
        """The ends of what the nodes logged."""
        return "\n".join(f"── {node.folder.name}\n{node.output(lines)}" for node in self.nodes)

    async def each_reaches(self, name: str, value: float) -> None:
        """Return once the metric `name` of every node is `value`."""
        await asyncio.gather(*(node.reaches(name, value) for node in self.nodes))
