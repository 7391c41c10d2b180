"""One call to the database: made again where its trouble is of the moment.

That is a fail-over, a restart, a cut connection, a deadlock. All calls may be made twice: see `store/sql`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from postroom.errors import OutcomeUnknown, StoreUnavailable
from postroom.postgres_link import Trouble
from postroom.store.lanes import FIRST_PAUSE, LONGEST_PAUSE, TRIES, Request


class ItemRequest(Request):
    """An item of a call."""

    __slots__ = ("item",)

    def __init__(self, item: Any) -> None:
        super().__init__()
        self.item = item


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
        deadline, pause, unknown = loop.time() + self._timeout, FIRST_PAUSE, False
        while True:
            try:
                answer = await attempt(max(min(self._timeout / TRIES, deadline - loop.time()), 0.001))
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
            pause = min(2 * pause, LONGEST_PAUSE)
