"""The appender keeps the store busy, and what it tells whom in order."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from postroom.channel import Retention
from postroom.destination import UserQueue
from postroom.errors import PostroomError, Refused, StoreUnavailable
from postroom.identity import UserName
from postroom.mailbox.appender import Appender
from postroom.message import Message
from postroom.metrics import Metrics
from postroom.position import Epoch, LogKey, Position
from postroom.store.base import Append, Appended
from postroom.store.memory import MemoryStore

BATCH = 1024


class Gated(MemoryStore):
    """A store whose appends wait to be let through, one batch after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Queue[Sequence[Append]]()  # noqa: TID251  (a test's own)
        self.outcome = asyncio.Queue[Exception | None]()  # noqa: TID251  (a test's own)
        self._offset = 0

    async def append(self, batch: Sequence[Append]) -> Sequence[Appended | Refused]:
        """Wait for the word, then store or fail as it says."""
        self.begun.put_nowait(batch)
        error = await self.outcome.get()
        if error is not None:
            raise error
        self._offset += len(batch)
        last = self._offset - len(batch)
        return [Appended(Position(Epoch(1), last + n), last + n - 1, last + n) for n in range(1, len(batch) + 1)]


@asynccontextmanager
async def appender(store: Gated) -> AsyncIterator[Appender]:
    made = Appender(store, Metrics(), lambda item, at: None)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(made.run())
        yield made
        running.cancel()


def item(number: int, user: str = "bob", *, tied: bool = False) -> Append:
    name = UserName(user)
    message = Message(UserQueue(name, "/queue/inbox"), name, {}, b"%d" % number)
    kept = Retention()
    return Append(LogKey(name, "/queue/inbox"), message, kept, 0, False, None, tied)


async def test_the_next_batch_is_at_the_store_before_the_senders_of_the_last_one_are_told() -> None:
    store = Gated()
    seen: list[tuple[int, bool]] = []
    async with appender(store) as made:
        for number in range(BATCH + 1):
            made.append(item(number), lambda outcome, n=number: seen.append((n, store.begun.empty())))  # type: ignore[misc]
        first = await store.begun.get()
        store.outcome.put_nowait(None)
        store.outcome.put_nowait(None)
        await made.flush()
    assert len(first) == BATCH
    assert [number for number, _ in seen] == list(range(BATCH + 1))
    assert seen[0] == (0, False)


async def test_a_flush_waits_for_what_is_appended_while_senders_are_told() -> None:
    store = Gated()
    outcomes: list[Appended | PostroomError] = []
    async with appender(store) as made:

        def go_on(outcome: Appended | PostroomError) -> None:
            outcomes.append(outcome)
            made.append(item(2), outcomes.append)

        made.append(item(1), go_on)
        await store.begun.get()
        flushed = asyncio.create_task(made.flush())  # noqa: TID251
        store.outcome.put_nowait(None)
        await store.begun.get()
        assert not flushed.done()
        store.outcome.put_nowait(None)
        await flushed
    assert len(outcomes) == 2


async def test_what_came_behind_a_failure_is_told_at_once_and_before_anything_else_is_stored() -> None:
    store = Gated()
    told: list[tuple[int, bool]] = []
    async with appender(store) as made:
        for number in range(BATCH + 2):
            user = "carol" if number == BATCH + 1 else "bob"
            made.append(item(number, user), lambda outcome, n=number: told.append((n, isinstance(outcome, Appended))))  # type: ignore[misc]
        await store.begun.get()
        store.outcome.put_nowait(StoreUnavailable("away"))
        (carols,) = await store.begun.get()
        assert carols.log.user == "carol"
        assert told == [(number, False) for number in range(BATCH + 1)]
        store.outcome.put_nowait(None)
        await made.flush()
    assert told[-1] == (BATCH + 1, True)


async def test_tied_items_are_never_in_two_batches() -> None:
    store = Gated()
    async with appender(store) as made:
        for number in range(BATCH + 3):
            made.append(item(number, tied=number >= BATCH - 1), lambda outcome: None)
        made.append(item(BATCH + 3), lambda outcome: None)
        assert len(await store.begun.get()) == BATCH + 3
        store.outcome.put_nowait(None)
        assert len(await store.begun.get()) == 1
        store.outcome.put_nowait(None)
        await made.flush()
