"""A program that is started again whenever it ends."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from tests.support.deadline import DEADLINE

from postroom.processes.child import start
from postroom.workers import kept
from postroom.workers.kept import Death, Kept, Launched

SERVES = "import sys; sys.stderr.write('1'); sys.stderr.flush(); sys.stdin.read(); import signal; signal.pause()"
FAILS = "import sys; sys.exit(3)"


class Program:
    """A small program; `says` is what it is next time."""

    def __init__(self, says: str) -> None:
        self.says = says
        self.starts = 0
        self.hopeful = True
        self.deaths: list[Death] = []
        self.changed = asyncio.Event()

    async def launch(self) -> Launched:
        self.starts += 1
        child = await start("it", (sys.executable, "-c", self.says), heard=True)

        async def serving() -> bool:
            assert child.stderr is not None
            return await child.stderr.read(1) == b"1"

        return Launched(child, serving)

    def died(self, death: Death) -> bool:
        self.deaths.append(death)
        self.changed.set()
        return self.hopeful

    async def until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not what():
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def keeping(program: Program) -> AsyncIterator[Kept]:
    it = Kept("it", program.launch, program.died)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(it.run())
        yield it
        await it.end(DEADLINE)


async def test_what_serves_is_started_again_when_it_is_killed() -> None:
    program = Program(SERVES)
    async with asyncio.timeout(DEADLINE), keeping(program) as it:
        await it.serving.wait()
        child = it._child
        assert child is not None
        child.kill()
        child.ending = False  # somebody else did it
        await program.until(lambda: program.deaths == [Death("it", -9, True)])
        await it.serving.wait()
        assert program.starts == 2
    assert len(program.deaths) == 1, "an end that was asked for is no death"


async def test_what_fails_again_and_again_is_given_more_and_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_FIRST_PAUSE", 0.01)
    program = Program(FAILS)
    async with keeping(program) as it:
        before = it._pause
        await program.until(lambda: len(program.deaths) >= 3)
        assert program.deaths[-1] == Death("it", 3, False)
        assert it._pause > before
        assert not it.serving.is_set()
        program.says = SERVES
        async with asyncio.timeout(DEADLINE):
            await it.serving.wait()


async def test_what_died_for_good_is_left_alone() -> None:
    program = Program(FAILS)
    program.hopeful = False
    async with asyncio.timeout(DEADLINE):
        await Kept("it", program.launch, program.died).run()
    assert program.deaths == [Death("it", 3, False)]
    assert program.starts == 1


async def test_renewing_returns_once_it_serves_anew_or_does_not() -> None:
    program = Program(SERVES)
    async with asyncio.timeout(2 * DEADLINE), keeping(program) as it:
        await it.serving.wait()
        assert await it.renew(DEADLINE)
        program.says = FAILS
        assert not await it.renew(DEADLINE)
    assert program.starts >= 3
