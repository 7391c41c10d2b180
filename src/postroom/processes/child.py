"""One process that this one started: how it starts, and how it is made to end."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

_LEASH: Final = str(Path(__file__).with_name("leash.py"))


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

    @property
    def stderr(self) -> asyncio.StreamReader | None:
        """What it says, if that was asked for."""
        return self._process.stderr

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._process.returncode is not None

    async def wait(self) -> int:
        """Its exit code, once it has ended; negative for a signal."""
        return await self._process.wait()

    def ask(self) -> None:
        """SIGTERM."""
        self.ending = True
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    async def end(self, seconds: float) -> bool:
        """SIGTERM; after `seconds` SIGKILL. Returns once it has ended: False where it had to be killed."""
        self.ask()
        try:
            async with asyncio.timeout(seconds):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()
            return False
        return True

    def kill(self) -> None:
        """SIGKILL, to what it has started too."""
        self.ending = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


async def start(
    name: str,
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    told: str = "",
    keeps: Sequence[int] = (),
    at_parents_death: signal.Signals = signal.SIGTERM,
    heard: bool = False,
) -> Child:
    """Start `command` in `folder`, with `told` on its standard input and the open files `keeps`.

    It says what it has to say on this process's standard error, or, where it is `heard`, to `Child.stderr`.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", _LEASH, str(os.getpid()), str(int(at_parents_death)), *command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE if heard else None,
        env=environment,
        cwd=folder,
        pass_fds=keeps,
        start_new_session=True,
    )
    assert process.stdin is not None
    with contextlib.suppress(ConnectionError):  # it has ended already: `wait` tells
        process.stdin.write(told.encode())
        process.stdin.close()
    return Child(name, process)


def how_it_ended(code: int) -> str:
    """The exit code in words."""
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
