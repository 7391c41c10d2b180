"""The processes of a demo of several nodes: started together, ended in order, none left behind."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final

import click

from postroom.errors import PostroomError
from postroom.processes.child import Child, how_it_ended, start

_LAST_WORDS_SECONDS: Final = 1.0
_TURN_SECONDS: Final = 0.05
_LINE_BYTES: Final = 65_536


class ChildDied(PostroomError):
    """A process ended that should have lived as long as the demo."""


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    rest = b""
    while data := await stream.read(_LINE_BYTES):
        *whole, rest = (rest + data).split(b"\n")
        if len(rest) > _LINE_BYTES:
            whole, rest = [*whole, rest], b""
        for line in whole:
            yield line
    if rest:
        yield rest


class Children:
    """All of them. `stopping` is set once the whole is to end: it was `asked` to, or something went wrong: `error`."""

    def __init__(self, tasks: asyncio.TaskGroup, *, width: int) -> None:
        self.stopping = asyncio.Event()
        self.error: PostroomError | None = None
        self._tasks = tasks
        self._width = width
        self._all: list[Child] = []

    @property
    def asked(self) -> bool:
        """Whether somebody wants the end."""
        return self.stopping.is_set() and self.error is None

    def fail(self, error: PostroomError) -> None:
        """The whole ends, because of `error`."""
        self.error = error
        self.stopping.set()

    async def start(self, name: str, command: Sequence[str], **how: Any) -> Child:
        """Start `command`; what it says is shown. See `postroom.processes.child.start`."""
        child = await start(name, command, heard=True, **how)
        self._all.append(child)
        self._tasks.create_task(self._attend(child))
        return child

    async def _attend(self, child: Child) -> None:
        said = self._tasks.create_task(self._show(child))
        code = await child.wait()
        # Whoever else holds its standard error must not keep its end a secret.
        await asyncio.wait({said}, timeout=_LAST_WORDS_SECONDS)
        said.cancel()
        if not child.ending and not self.stopping.is_set():
            self.fail(ChildDied(f"{child.name} {how_it_ended(code)}"))
            click.secho(f"\n{self.error}: the others are ended too\n", err=True, bold=True, fg="red")

    async def _show(self, child: Child) -> None:
        assert child.stderr is not None
        async for line in _lines(child.stderr):
            click.echo(f"{child.name:{self._width}} | {line.decode(errors='replace')}", err=True)

    async def end(self, child: Child, seconds: float) -> None:
        """SIGTERM; after `seconds` SIGKILL. Returns once it has ended."""
        if not await child.end(seconds):
            click.echo(f"{child.name} did not end within {seconds:g} s: it was killed", err=True)

    async def until(self, ready: Callable[[], Awaitable[bool]], *, seconds: float) -> bool:
        """Return once `ready`; False where the demo stops before, or `seconds` are over."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while not self.stopping.is_set() and loop.time() < end:
            if await ready():
                return True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TURN_SECONDS):
                    await self.stopping.wait()
        return False

    def stop(self) -> None:
        """Somebody asks for the end; who asks twice does not want to wait."""
        if self.stopping.is_set():
            for child in self._all:
                child.kill()
        else:
            click.echo("\nstopping; once more ends everything at once", err=True)
            self.stopping.set()
