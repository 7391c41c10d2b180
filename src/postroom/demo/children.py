"""The processes of a demo of several nodes: started together, ended in order, none left behind."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import click

from postroom.errors import PostroomError

_LEASH: Final = str(Path(__file__).with_name("leash.py"))
_LAST_WORDS_SECONDS: Final = 1.0
_TURN_SECONDS: Final = 0.05
_LINE_BYTES: Final = 65_536


class ChildDied(PostroomError):
    """A process ended that should have lived as long as the demo."""


class Child:
    """One process, in a session of its own: the terminal's Ctrl-C does not reach it, `end` does."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.ending = False
        self._process = process

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    async def end(self, seconds: float) -> None:
        """SIGTERM; after `seconds` SIGKILL. Returns once it has ended."""
        self.ending = True
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(seconds):
                await self._process.wait()
        except TimeoutError:
            click.echo(f"{self.name} does not end within {seconds:g} s: it is killed", err=True)
            self.kill()
            await self._process.wait()

    def kill(self) -> None:
        """SIGKILL, to what it has started too."""
        self.ending = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    async def attend(self, tasks: asyncio.TaskGroup, width: int) -> int:
        """Show what it says until it ends; its exit code, negative for a signal."""
        said = tasks.create_task(self._show(width))
        code = await self._process.wait()
        # Whoever else holds its standard error must not keep its end a secret.
        await asyncio.wait({said}, timeout=_LAST_WORDS_SECONDS)
        said.cancel()
        return code

    async def _show(self, width: int) -> None:
        stream = self._process.stderr
        assert stream is not None
        async for line in _lines(stream):
            click.echo(f"{self.name:{width}} | {line.decode(errors='replace')}", err=True)


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

    async def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        told: str = "",
        keeps: Sequence[int] = (),
        at_parents_death: signal.Signals = signal.SIGTERM,
    ) -> Child:
        """Start `command` in `folder`, with `told` on its standard input and the open files `keeps`."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", _LEASH, str(os.getpid()), str(int(at_parents_death)), *command),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            cwd=folder,
            pass_fds=keeps,
            start_new_session=True,
        )
        child = Child(name, process)
        self._all.append(child)
        self._tasks.create_task(self._attend(child))
        assert process.stdin is not None
        process.stdin.write(told.encode())
        process.stdin.close()
        return child

    async def _attend(self, child: Child) -> None:
        code = await child.attend(self._tasks, self._width)
        if not child.ending and not self.stopping.is_set():
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            self.fail(ChildDied(f"{child.name} {how}"))
            click.secho(f"\n{self.error}: the others are ended too\n", err=True, bold=True, fg="red")

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
