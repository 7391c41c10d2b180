"""The process that keeps the workers: it binds the port, starts them and the embedded engine, and ends them in order.

It serves nobody itself. A worker or an engine that dies is started again; what was durable is in the store. Where the
first worker does not come up, the whole ends: that worker has said why. Should this process be killed, so are the
workers.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog
from msgspec import structs

from postroom.config import Settings, load
from postroom.errors import PostroomError
from postroom.listeners import BACKLOG, Doors, open_doors
from postroom.logs import without_passwords
from postroom.processes.child import how_it_ended, start
from postroom.processes.folders import alone, private_folder
from postroom.processes.valkey import NoValkey, Valkey
from postroom.workers.engines import check
from postroom.workers.errand import Errand, encode
from postroom.workers.kept import Death, Kept, Launched

_log = structlog.get_logger("postroom.workers")

_END_SECONDS: Final = 20.0
"""What a process may take to end; a worker beside the time of its drain."""

_TURN_SECONDS: Final = 0.05
_CONFIGURATION: Final = 2
"""The exit status of a worker whose settings are wrong."""


class WorkerDied(PostroomError):
    """The first worker was ended before it served."""


def run(settings: Settings, application: str | None, config: Path | None, overrides: Mapping[str, Any]) -> int:
    """Keep `settings.workers` workers until SIGTERM or SIGINT; SIGHUP starts them anew, one after the other. Blocks.

    They serve `application` with the settings of `config` and `overrides`. Returns the exit status: that of a first
    worker that did not come up, which has said why. Raises ConfigurationError, NoValkey, WorkerDied, or OSError where
    the port cannot be had.
    """
    engines = check(settings)
    with contextlib.ExitStack() as stack:
        keeps = [stack.enter_context(alone(engines.folder))] if engines.folder is not None else []
        folder = stack.enter_context(private_folder())
        valkey = Valkey(engines.folder, folder) if engines.folder is not None else None
        if valkey is not None:
            engines = engines.at(valkey.url)
        shared = {"store": engines.store, "backplane": engines.backplane or None}
        doors = stack.enter_context(contextlib.closing(_listening(settings)))
        told = Errand(
            application=application,
            config=str(config) if config is not None else None,
            overrides={**overrides, **shared},
            names=[f"{settings.node_id}-{number}" for number in range(1, settings.workers + 1)],
            folder=str(folder),
            web=doors.web.fileno(),
            stomp=doors.stomp.fileno() if doors.stomp is not None else None,
        )
        runner = stack.enter_context(asyncio.Runner())
        return runner.run(_Supervisor(told, settings.drain_seconds, doors, valkey, keeps).run())


def _listening(settings: Settings) -> Doors:
    # Who comes before the first worker is there waits; and nobody else can have the port.
    doors = open_doors(settings)
    for door in doors:
        if door is not None:
            door.listen(BACKLOG)
    return doors


class _Supervisor:
    """The workers, which do `errand`, and what they stand on."""

    def __init__(
        self, errand: Errand, drain_seconds: float, doors: Doors, valkey: Valkey | None, keeps: list[int]
    ) -> None:
        self._errand = errand
        self._end_seconds = drain_seconds + _END_SECONDS
        self._doors = doors
        self._valkey = valkey
        self._keeps = keeps
        self._stopping = asyncio.Event()
        self._code = 0
        self._error: PostroomError | None = None
        self._served = self._stored = False
        self._engine = Kept("the embedded Valkey", self._launch_engine, self._engine_died)
        self._workers = [Kept(name, partial(self._launch, name), self._worker_died) for name in errand.names]
        self._rolling: asyncio.Task[None] | None = None

    async def run(self) -> int:
        """Start everything, wait for the end, end everything."""
        async with asyncio.TaskGroup() as tasks:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self._stop)
            loop.add_signal_handler(signal.SIGHUP, self._renew, tasks)
            try:
                await self._start(tasks)
                await self._stopping.wait()
            finally:
                await self._end()
        if self._error is not None:
            raise self._error
        return self._code

    async def _start(self, tasks: asyncio.TaskGroup) -> None:
        # Each is there before who stands on it; and what is wrong with all workers is said by the first alone.
        if self._valkey is not None:
            await self._begin(self._engine, tasks)
            self._stored = True
        first, *others = self._workers
        await self._begin(first, tasks)
        if self._stopping.is_set():
            return
        self._served = True
        await asyncio.gather(*(self._begin(other, tasks) for other in others))
        if not self._stopping.is_set():
            store = without_passwords(self._errand.overrides["store"])
            _log.info("the workers serve", workers=len(self._workers), store=store)

    async def _begin(self, kept: Kept, tasks: asyncio.TaskGroup) -> None:
        """Start it, and return once it serves, or nobody wants it any more."""
        if self._stopping.is_set():
            return
        tasks.create_task(kept.run(), name=kept.name)
        either = [tasks.create_task(event.wait()) for event in (kept.serving, self._stopping)]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        for each in either:
            each.cancel()

    async def _end(self) -> None:
        self._stopping.set()
        self._doors.close()
        if self._rolling is not None:
            self._rolling.cancel()
        await asyncio.gather(*(worker.end(self._end_seconds) for worker in self._workers))
        await self._engine.end(_END_SECONDS)

    # ── starting ──────────────────────────────────────────────────────────────────────────────────────

    async def _launch(self, name: str) -> Launched:
        reader, writer = os.pipe()
        try:
            told = structs.replace(self._errand, name=name, serving=writer)
            child = await start(
                name,
                (sys.executable, "-m", "postroom", "worker", name),
                told=encode(told),
                keeps=told.open_files,
                at_parents_death=signal.SIGKILL,
            )
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)

        async def serving() -> bool:
            stream = asyncio.StreamReader()
            loop = asyncio.get_running_loop()
            pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(reader))
            try:
                return await stream.read(1) != b""
            finally:
                pipe.close()

        return Launched(child, serving)

    async def _launch_engine(self) -> Launched:
        valkey = self._valkey
        assert valkey is not None
        # It keeps the folder's lock too: should this process be killed, nobody else begins there before it has ended.
        child = await start("valkey", valkey.command, folder=valkey.folder, told=valkey.config, keeps=self._keeps)

        async def serving() -> bool:
            while not child.ended:
                if await valkey.ready():
                    return True
                await asyncio.sleep(_TURN_SECONDS)
            return False

        return Launched(child, serving)

    # ── what happens ──────────────────────────────────────────────────────────────────────────────────

    def _engine_died(self, death: Death) -> bool:
        if not self._stored and self._valkey is not None:
            log = self._valkey.folder / self._valkey.log
            self._error = NoValkey(f"{death.name} {how_it_ended(death.code)}; see {log}")
            self._stopping.set()
        return not self._stopping.is_set()

    def _worker_died(self, death: Death) -> bool:
        if death.served:
            return True
        hopeless = death.code == _CONFIGURATION and not any(worker.serving.is_set() for worker in self._workers)
        if self._served and not hopeless:
            return True
        if death.code > 0:
            self._code = death.code
        else:
            self._error = WorkerDied(f"{death.name} {how_it_ended(death.code)} before it served")
        self._stopping.set()
        return False

    def _stop(self) -> None:
        """Somebody asks for the end; who asks twice does not want to wait."""
        if self._stopping.is_set():
            for worker in self._workers:
                worker.kill()
        self._stopping.set()

    def _renew(self, tasks: asyncio.TaskGroup) -> None:
        """SIGHUP."""
        if self._stopping.is_set():
            return
        if self._rolling is not None and not self._rolling.done():
            _log.warning("the workers are being started anew already")
            return
        self._rolling = tasks.create_task(self._renew_each())

    async def _renew_each(self) -> None:
        try:
            check(load(self._errand.config_file, os.environ, self._errand.overrides))
        except PostroomError as error:
            _log.error("the workers stay as they are", reason=str(error))
            return
        for worker in self._workers:
            _log.info(f"{worker.name} is started anew")
            if not await worker.renew(self._end_seconds):
                _log.error(f"{worker.name} does not come up: the others stay as they are")
                return
        _log.info("all workers were started anew")
