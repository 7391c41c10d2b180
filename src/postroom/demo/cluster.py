"""Several nodes of the demo behind one port: a Valkey, the nodes, and nginx or a small front of Python's."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import click
from msgspec import structs

from postroom.config import Settings
from postroom.demo import nginx
from postroom.demo.children import ChildDied, Children
from postroom.demo.front import Front
from postroom.demo.places import answers, check_free, free_ports
from postroom.errors import ConfigurationError
from postroom.node import backplane_url
from postroom.processes.child import Child
from postroom.processes.folders import alone, private_folder
from postroom.processes.valkey import NoValkey, Valkey

FOLDER: Final = Path("postroom-data") / "demo"

_START_SECONDS: Final = 60.0
_END_SECONDS: Final = 10.0
_HEALTH: Final = b"GET /readyz HTTP/1.1\r\nHost: postroom\r\nConnection: close\r\n\r\n"


def run(settings: Settings, nodes: int, secret: str, config: Path | None) -> None:
    """Run `nodes` nodes behind `settings.host` and `settings.port` until SIGTERM or SIGINT.

    Their cookies are signed with `secret`; `config` is the settings' file. Raises NoValkey where the settings name no
    store and there is none to start, and whatever ends the demo.
    """
    if sys.platform == "win32":
        raise ConfigurationError("several nodes are for Linux and macOS: leave --nodes out")
    check_free(settings.host, settings.port)
    with alone(FOLDER) as lock, private_folder() as sockets, asyncio.Runner() as runner:
        valkey = None if _names_engines(settings) else Valkey(FOLDER, sockets)
        if valkey is not None:
            settings = structs.replace(settings, store=valkey.url)
        demo = _Demo(settings, free_ports(nodes), _environment(settings, secret, config), valkey)
        runner.run(demo.run(lock))


def _names_engines(settings: Settings) -> bool:
    """Whether a store is named that nodes can share; False where nothing is. Raises ConfigurationError otherwise."""
    if settings.store == Settings().store and not settings.backplane:
        return False
    if settings.store.partition(":")[0] in ("sqlite", "memory") or not backplane_url(settings):
        raise ConfigurationError(
            "several nodes need a store that they share: --store redis://HOST, or none for a Valkey of the demo's own"
        )
    return True


def _environment(settings: Settings, secret: str, config: Path | None) -> Mapping[str, str]:
    """What every node is told: passwords are not for the list of processes."""
    told = {
        "POSTROOM_HOST": "127.0.0.1",
        "POSTROOM_STORE": settings.store,
        "POSTROOM_ROUTING": settings.routing,
        "POSTROOM_AUTH_COOKIE_SECRET": secret,
    }
    if settings.backplane:
        told["POSTROOM_BACKPLANE"] = settings.backplane
    if config is not None:
        told["POSTROOM_CONFIG"] = str(config)
    return {**os.environ, **told}


class _Demo:
    """The processes, in the order in which they start: front, Valkey, nodes. They end in the opposite one."""

    def __init__(
        self, settings: Settings, ports: Sequence[int], environment: Mapping[str, str], valkey: Valkey | None
    ) -> None:
        self._settings = settings
        self._host, self._port = settings.host, settings.port or free_ports(1)[0]
        self._ports = ports
        self._environment = environment
        self._valkey = valkey

    async def run(self, lock: int) -> None:
        """Start everything, wait for the end, end everything. Raises ChildDied or NoValkey."""
        async with asyncio.TaskGroup() as tasks:
            children = Children(tasks, width=len(f"node-{len(self._ports)}"))
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                loop.add_signal_handler(number, children.stop)
            async with self._front(children) as front, self._storing(children, lock), self._nodes(children):
                if await children.until(self._ready, seconds=_START_SECONDS):
                    self._announce(front)
                elif not children.stopping.is_set():
                    children.fail(ChildDied(f"the nodes are not ready within {_START_SECONDS:g} s"))
                await children.stopping.wait()
        if children.error is not None:
            raise children.error

    def _announce(self, front: str) -> None:
        url = click.style(f"http://{self._host}:{self._port}", bold=True)
        click.echo(f"\n{len(self._ports)} nodes behind {front}: {url}\nTwo people in one window: {url}/two\n", err=True)

    async def _ready(self) -> bool:
        return all([await answers(port, _HEALTH, b"HTTP/1.1 200 OK") for port in self._ports])

    @asynccontextmanager
    async def _front(self, children: Children) -> AsyncIterator[str]:
        folder = FOLDER / "nginx"
        try:
            command = nginx.prepare(folder, nginx.config(self._host, self._port, self._ports))
        except nginx.NoNginx as error:
            click.echo(f"{error}: a small front in Python stands in", err=True)
            server = await Front(self._ports).serve(self._host, self._port)
            try:
                yield "a front in Python"
            finally:
                server.close()
            return
        child = await children.start("nginx", command, folder=folder)
        try:
            yield "nginx"
        finally:
            await children.end(child, _END_SECONDS)

    @asynccontextmanager
    async def _storing(self, children: Children, lock: int) -> AsyncIterator[None]:
        valkey = self._valkey
        if valkey is None:
            yield
            return
        # It keeps the lock too: should this process be killed, nobody else begins before it has ended.
        child = await children.start("valkey", valkey.command, folder=valkey.folder, told=valkey.config, keeps=[lock])
        try:
            if not await children.until(valkey.ready, seconds=_START_SECONDS) and not children.asked:
                children.fail(NoValkey(f"{children.error or 'Valkey does not answer'}; see {FOLDER / valkey.log}"))
            yield
        finally:
            await children.end(child, _END_SECONDS)

    @asynccontextmanager
    async def _nodes(self, children: Children) -> AsyncIterator[None]:
        started: list[Child] = []
        try:
            for number, port in enumerate(self._ports, 1):
                if not children.stopping.is_set():
                    started.append(await self._node(children, f"node-{number}", port))
            yield
        finally:
            seconds = self._settings.drain_seconds + 2 * _END_SECONDS
            await asyncio.gather(*(children.end(child, seconds) for child in started))

    async def _node(self, children: Children, name: str, port: int) -> Child:
        own = {"POSTROOM_NODE_ID": name, "POSTROOM_PORT": str(port)}
        return await children.start(
            name,
            (sys.executable, "-m", "postroom", "demo-node"),
            environment={**self._environment, **own},
            at_parents_death=signal.SIGKILL,
        )
