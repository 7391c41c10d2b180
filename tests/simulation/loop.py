"""An event loop whose time is virtual, and hosts in it that can be paused and killed.

There are no files, no threads and no waiting: where nothing is left to do now, the time of the next timer has come.
With the same seed, and with nothing that asks for the real time, a run is the same each time.
"""

import asyncio
import contextvars
import selectors
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from contextvars import Context, ContextVar
from typing import Any, Final, TypeVar

T = TypeVar("T")

_SPINS: Final = 50_000
"""So many turns without a step of time, and somebody is spinning."""


class Host:
    """What runs here runs as on a computer of its own: it can be paused, and it can die."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.paused = False
        self.dead = False
        self.late: deque[_Callback] = deque()

    def context(self) -> Context:
        """A context whose tasks, timers and callbacks, and all that come of them, run on this host."""
        context = contextvars.copy_context()
        context.run(HOST.set, self)
        return context

    def pause(self) -> None:
        """Stop in mid-air. Deadlines pass, messages pile up."""
        self.paused = True

    def resume(self) -> None:
        """Go on, first of all with what came meanwhile."""
        self.paused = False
        loop = asyncio.get_running_loop()
        for callback in self.late:
            loop.call_soon(callback.run, context=callback.context)
        self.late.clear()

    def die(self) -> None:
        """Nothing runs here any more, timers neither."""
        self.dead = True
        self.late.clear()


HOST: Final[ContextVar[Host | None]] = ContextVar("host", default=None)


class _Callback:
    """A callback of a host: run when its time has come, later if the host is paused then, never if it is dead."""

    __slots__ = ("args", "call", "context", "handle", "host")

    def __init__(self, host: Host, call: Callable[..., object], args: tuple[Any, ...], context: Context) -> None:
        self.host, self.call, self.args, self.context = host, call, args, context
        self.handle: asyncio.Handle | None = None

    def run(self) -> None:
        if self.host.dead or (self.handle is not None and self.handle.cancelled()):
            return
        if self.host.paused:
            self.host.late.append(self)
        else:
            self.call(*self.args)


class _NoFiles(selectors.BaseSelector):
    """Nothing ever happens to a file here; to wait is to turn the clock."""

    def __init__(self, turn: Callable[[float], None]) -> None:
        self._turn = turn

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        raise AssertionError("a simulation opens no files")

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        raise AssertionError("a simulation opens no files")

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return {}

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everybody waits for somebody else"
        self._turn(timeout)
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop. `time()` begins at 1000, for nobody to take 0 for "never"."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 1000.0
        self._spins = 0
        self._selector = _NoFiles(self._turn)
        self.unhandled: list[str] = []
        self.set_exception_handler(self._unhandled)

    def time(self) -> float:
        return self._now

    def _turn(self, seconds: float) -> None:
        if seconds > 0:
            self._now += seconds
            self._spins = 0
        else:
            self._spins += 1
            assert self._spins < _SPINS, "somebody spins: the time does not pass"

    def _process_events(self, events: list[Any]) -> None:
        assert not events

    def _write_to_self(self) -> None:
        raise AssertionError("a simulation has no threads")

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.unhandled.append(f"{context.get('message')}: {context.get('exception')!r}")

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.Handle:  # type: ignore[override]
        context = context if context is not None else contextvars.copy_context()
        host = context.get(HOST)
        if host is None:
            return super().call_soon(callback, *args, context=context)
        gate = _Callback(host, callback, args, context)
        gate.handle = super().call_soon(gate.run, context=context)
        return gate.handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        context = context if context is not None else contextvars.copy_context()
        host = context.get(HOST)
        if host is None:
            return super().call_at(when, callback, *args, context=context)
        gate = _Callback(host, callback, args, context)
        handle = super().call_at(when, gate.run, context=context)
        gate.handle = handle
        return handle


class VirtualClock:
    """The clock of one host: a loop's time, and a wall clock that may be wrong by `skew` seconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop, skew: float = 0.0) -> None:
        self._loop = loop
        self.skew = skew

    def monotonic(self) -> float:
        return self._loop.time()

    def wall(self) -> float:
        return 1_700_000_000.0 + self._loop.time() + self.skew


def run(main: Callable[[VirtualLoop], Coroutine[Any, Any, T]], *, limit: float) -> T:
    """What `main` returns. It may take `limit` seconds of virtual time."""
    loop = VirtualLoop()

    async def bounded() -> T:
        async with asyncio.timeout(limit):
            return await main(loop)

    try:
        return loop.run_until_complete(bounded())
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
