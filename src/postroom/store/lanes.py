"""Requests to a server, many at once: what came while the last call was under way goes with the next."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic, TypeVar

from postroom.errors import OutcomeUnknown, PostroomError

FIRST_PAUSE: Final = 0.02
"""Seconds until a call is made again whose trouble may pass; each further pause is twice as long."""
LONGEST_PAUSE: Final = 0.5
TRIES: Final = 2.5
"""How many attempts that wait to their end fit into the time of a call."""


class _Call:
    """Some requests of one caller."""

    __slots__ = ("future", "left")

    def __init__(self, future: "asyncio.Future[None]", left: int) -> None:
        self.future = future
        self.left = left


class Request:
    """Something asked for, and what became of it."""

    __slots__ = ("answer", "call", "error")

    def __init__(self) -> None:
        self.answer: Any = None
        self.error: PostroomError | None = None
        self.call: _Call | None = None

    def abandon(self) -> None:
        """Its call was given up half-way."""
        self.error = OutcomeUnknown("it was given up")

    def settle(self) -> None:
        """Tell who asked, once all that they asked for is known."""
        if (call := self.call) is not None:
            call.left -= 1
            if not call.left and not call.future.done():
                call.future.set_result(None)


R = TypeVar("R", bound=Request)


class Lane(Generic[R]):
    """Requests of one kind wait here; `workers` calls at most are under way at a time, started in order.

    `serve` gives each request its answer or its error. At most `at_once` requests go in one call, and of `max_size`
    in sum but for the last one.
    """

    def __init__(
        self,
        serve: Callable[[Sequence[R]], Awaitable[None]],
        tasks: asyncio.TaskGroup,
        *,
        workers: int = 1,
        at_once: int = 512,
        max_size: int = 4 * 1024 * 1024,
        size: Callable[[R], int] = lambda request: 0,
    ) -> None:
        self._serve, self._tasks, self._workers = serve, tasks, workers
        self._at_once, self._max_size, self._size = at_once, max_size, size
        self._waiting: deque[R] = deque()
        self._working = 0
        self._starting = False

    async def ask(self, requests: Sequence[R]) -> None:
        """Return once each request has its answer or its error. A caller that gives up changes nothing."""
        if not requests:
            return
        call = _Call(asyncio.get_running_loop().create_future(), len(requests))
        for request in requests:
            request.call = call
        self._waiting.extend(requests)
        if not self._starting and self._working < self._workers:
            # It begins after this turn of the loop, and takes what comes in it too.
            self._starting = True
            self._tasks.create_task(self._work())
        await call.future

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
                        request.abandon()
                    raise
                finally:
                    for request in batch:
                        request.settle()
        finally:
            self._working -= 1

    def _take(self) -> list[R]:
        batch, size = list[R](), 0
        while self._waiting and len(batch) < self._at_once and size < self._max_size:
            request = self._waiting.popleft()
            batch.append(request)
            size += self._size(request)
        return batch


def answers(requests: Sequence[Request]) -> list[Any]:
    """Their answers. Raises the first error that there is among them."""
    for request in requests:
        if request.error is not None:
            raise request.error
    return [request.answer for request in requests]
