"""Requests to the database, many at once: what came while the last call was under way goes with the next.

A request that meets trouble of the moment (a fail-over, a restart, a cut connection, a deadlock) is made again for as
long as a call may take. All calls may be made twice: see `store/sql`.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from postroom.errors import OutcomeUnknown, PostroomError, StoreUnavailable
from postroom.postgres_link import Trouble

_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.5
_TRIES: Final = 2.5
"""How many attempts that wait to their end fit into the time of a call."""


class Request:
    """Something asked for, and what became of it."""

    __slots__ = ("answer", "call", "error", "item")

    def __init__(self, item: Any) -> None:
        self.item = item
        self.answer: Any = None
        self.error: PostroomError | None = None
        self.call: _Call | None = None

    def settle(self) -> None:
        """Tell who asked, once all that they asked for is known."""
        if (call := self.call) is not None:
            call.left -= 1
            if not call.left and not call.future.done():
                call.future.set_result(None)


class _Call:
    __slots__ = ("future", "left")

    def __init__(self, future: "asyncio.Future[None]", left: int) -> None:
        self.future = future
        self.left = left


class Patience:
    """Makes a call again while its trouble may pass, `timeout` seconds at most.

    Where the database was in trouble before, nobody waits for its end once more: the first failure is the answer.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._down = False

    async def call(self, attempt: Callable[[float], Awaitable[Any]], *, appends: bool = False) -> Any:
        """What `attempt`, told how many seconds it has, returns. Raises StoreUnavailable, or what it raises itself.

        `appends`: where the outcome of some attempt is not known, that is said (OutcomeUnknown).
        """
        loop = asyncio.get_running_loop()
        deadline, pause, unknown = loop.time() + self._timeout, _FIRST_PAUSE, False
        while True:
            try:
                answer = await attempt(max(min(self._timeout / _TRIES, deadline - loop.time()), 0.001))
            except Trouble as trouble:
                unknown = unknown or trouble.sent
                over = loop.time() + pause >= deadline
                if over or self._down or not trouble.passing:
                    self._down = self._down or (over and trouble.passing)
                    kind = OutcomeUnknown if unknown and appends else StoreUnavailable
                    raise kind(f"PostgreSQL: {trouble}") from trouble
            else:
                self._down = False
                return answer
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


class Lane:
    """Requests of one kind wait here; `workers` calls at most are under way at a time, started in order.

    `serve` gives each request its answer or its error. At most `at_once` requests go in one call, of `max_size` in sum.
    """

    def __init__(
        self,
        serve: Callable[[Sequence[Request]], Awaitable[None]],
        tasks: asyncio.TaskGroup,
        *,
        workers: int = 1,
        at_once: int = 512,
        max_size: int = 4 * 1024 * 1024,
        size: Callable[[Any], int] = lambda item: 0,
    ) -> None:
        self._serve, self._tasks, self._workers = serve, tasks, workers
        self._at_once, self._max_size, self._size = at_once, max_size, size
        self._waiting: deque[Request] = deque()
        self._working = 0
        self._starting = False

    async def ask(self, items: Sequence[Any]) -> list[Any]:
        """The answers, in order. A caller that gives up changes nothing."""
        if not items:
            return []
        call = _Call(asyncio.get_running_loop().create_future(), len(items))
        requests = [Request(item) for item in items]
        for request in requests:
            request.call = call
        self._waiting.extend(requests)
        if not self._starting and self._working < self._workers:
            # It begins after this turn of the loop, and takes what comes in it too.
            self._starting = True
            self._tasks.create_task(self._work())
        await call.future
        for request in requests:
            if request.error is not None:
                raise request.error
        return [request.answer for request in requests]

    async def _work(self) -> None:
        self._working += 1
        self._starting = False
        try:
            while self._waiting:
                batch = self._take()
                try:
                    await self._serve(batch)
                except PostroomError as error:
                    for request in batch:
                        request.error = error
                except BaseException:
                    for request in batch:
                        request.error = OutcomeUnknown("it was given up")
                    raise
                finally:
                    for request in batch:
                        request.settle()
        finally:
            self._working -= 1

    def _take(self) -> list[Request]:
        batch, size = list[Request](), 0
        while self._waiting and len(batch) < self._at_once and size < self._max_size:
            batch.append(self._waiting.popleft())
            size += self._size(batch[-1].item)
        return batch
