"""A program that is started again whenever it ends."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from msgspec import Struct

from postroom.processes.child import Child, how_it_ended

_log = structlog.get_logger("postroom.workers")

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 15.0
_HEALTHY_SECONDS: Final = 30.0
"""Who served so long is started again at once, however often it ended before."""


class Launched(Struct):
    """A process that was started; `serving` returns once it serves, or False once it has ended before."""

    child: Child
    serving: Callable[[], Awaitable[bool]]


class Death(Struct, frozen=True):
    """An end that nobody asked for: of whom, with which exit code, and whether it had served."""

    name: str
    code: int
    served: bool


class Kept:
    """The program `name`, which `launch` starts.

    `died` is told of each end that nobody asked for, and says whether it is to be started again.
    """

    def __init__(self, name: str, launch: Callable[[], Awaitable[Launched]], died: Callable[[Death], bool]) -> None:
        self.name = name
        self.serving = asyncio.Event()
        self._launch = launch
        self._died = died
        self._child: Child | None = None
        self._pause = _FIRST_PAUSE
        self._over = asyncio.Event()
        self._settled = asyncio.Event()

    async def run(self) -> None:
        """Keep it running until `end`, or until it has died for good."""
        loop = asyncio.get_running_loop()
        while not self._over.is_set():
            began = loop.time()
            try:
                launched = await self._launch()
            except OSError as error:
                await self._rest(f"cannot be started: {error}")
                continue
            self._child = launched.child
            code, served = await self._attend(launched)
            self._child = None
            if launched.child.ending:
                continue
            if not self._died(Death(self.name, code, served)):
                return
            if served and loop.time() - began > _HEALTHY_SECONDS:
                self._pause = _FIRST_PAUSE
            await self._rest(how_it_ended(code))

    async def _attend(self, launched: Launched) -> tuple[int, bool]:
        """The exit code, and whether it served."""
        try:
            served = await launched.serving()
            if served:
                self.serving.set()
            self._settled.set()
            return await launched.child.wait(), served
        finally:
            self.serving.clear()
            self._settled.clear()

    async def _rest(self, how: str) -> None:
        if self._over.is_set():
            return
        pause = self._pause * random.uniform(0.8, 1.2)
        _log.error(f"{self.name} {how}; it is started again", pause_seconds=round(pause, 2))
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._over.wait()

    async def renew(self, seconds: float) -> bool:
        """End it as `end` does, and return once it serves anew; False where it does not come up at once."""
        self._settled.clear()
        if self._child is not None:
            await self._say_end(self._child, seconds)
        await self._settled.wait()
        return self.serving.is_set()

    async def end(self, seconds: float) -> None:
        """SIGTERM; after `seconds` SIGKILL. It is not started again. Returns once it has ended."""
        self._over.set()
        if self._child is not None:
            await self._say_end(self._child, seconds)

    async def _say_end(self, child: Child, seconds: float) -> None:
        if not await child.end(seconds):
            _log.error(f"{self.name} did not end in time: it was killed", seconds=seconds)

    def kill(self) -> None:
        """SIGKILL."""
        self._over.set()
        if self._child is not None:
            self._child.kill()
