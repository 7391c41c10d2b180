"""PostgreSQL: logs, cursors and the directory in one database that all nodes reach. See `postgres_link` for the URL.

All is done by functions in the database (`sql/`), one call each, which serve many requests at once: no lock is ever
held across the network.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self, cast

import structlog

from postroom.clock import Clock, SystemClock
from postroom.errors import LeaseLost, LeaseTaken, Refused, StoreUnavailable
from postroom.findings import Finding
from postroom.identity import Lease, NodeId, UserName
from postroom.position import Epoch, Head, LogKey, Position
from postroom.postgres_link import Lines, Trouble, parse_url
from postroom.store import postgres_codec as codec
from postroom.store import postgres_schema as schema
from postroom.store.base import Append, Appended, Confirm, Cursor, Page
from postroom.store.lanes import Lane, answers
from postroom.store.postgres_calls import ItemRequest, Patience
from postroom.store.together import runs

_log = structlog.get_logger("postroom.store")

_SWEPT_LOGS: Final = 1000
_SWEPT_MESSAGES: Final = 5000
_SWEEP_STEPS: Final = 25
_FORGOTTEN: Final = 2000

_WRITER_SECONDS: Final = 30 * 86_400.0
"""Half of the time for which the database remembers the batches of a writer."""

_SILENT: Final = frozenset(("attempt", "confirm", "forget", "move", "retire"))
"""What answers nothing."""

_ENDED, _TAKEN = "PR002", "PR003"


class PostgresStore:
    """Logs, cursors and the directory in one schema of a database."""

    durable = True

    def __init__(self, url: str, *, clock: Clock | None = None) -> None:
        self._url = parse_url(url)
        self._clock = clock
        options = self._url.options
        self._lines = Lines(self._url, options.pool)
        self._appends = Lines(self._url, 1)
        self._patience = Patience(options.timeout)
        self._tasks = asyncio.TaskGroup()
        self._closed = True
        self._swept = 0
        self._epoch = 0
        self._writer, self._batch, self._stored = os.urandom(16), 0, 0
        self._idle_clock = clock if clock is not None else SystemClock()
        self._appended = self._idle_clock.monotonic()
        self._mover, self._moves = os.urandom(16), 0
        some = max(1, options.pool // 2)
        self._appending = Lane(self._append, self._tasks, size=_size)
        self._reading = Lane(self._read, self._tasks, workers=some, at_once=32)
        self._heading = Lane(self._heads, self._tasks, workers=some)
        self._looking = Lane(self._look, self._tasks, workers=some)
        self._confirming = Lane(self._confirm, self._tasks)
        self._attempting = Lane(self._attempt, self._tasks)
        # One at a time, so that what enters and leaves at once does so in order.
        self._moving = Lane(self._move, self._tasks, at_once=5000)
        self._locating = Lane(self._locate, self._tasks, workers=some, at_once=5000)

    async def __aenter__(self) -> Self:
        """Find the database, and bring its schema up to date. Raises StoreUnavailable."""
        await self._patience.call(lambda _: schema.prepare(self._url))
        await self._tasks.__aenter__()
        self._closed = False
        return self

    async def check(self) -> Sequence[Finding]:
        """See `Checks`. Makes nothing in the database."""
        try:
            return await schema.findings(self._url)
        except Trouble as trouble:
            raise StoreUnavailable(f"PostgreSQL: {trouble}") from trouble

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish what was accepted, then close the connections."""
        self._closed = True
        try:
            await self._tasks.__aexit__(None, None, None)
        finally:
            self._lines.close()
            self._appends.close()

    def _now(self) -> int:
        return int(self._clock.wall() * 1e6) if self._clock is not None else 0

    async def _ask(self, lane: Lane[ItemRequest], items: Sequence[Any]) -> list[Any]:
        self._check_open()
        requests = [ItemRequest(item) for item in items]
        await lane.ask(requests)
        return answers(requests)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")

    async def _call(self, function: str, *arguments: Any, lines: Lines | None = None, appends: bool = False) -> Any:
        """The rows of one of the schema's functions. Raises StoreUnavailable, or LeaseLost where it says so."""
        places = ", ".join(f"${n}" for n in range(1, len(arguments) + 1))
        name = f'"{self._url.options.schema}".{function}'
        # Of the type of nothing the driver would ask the server first.
        statement = f"SELECT {'' if function in _SILENT else '* '}FROM {name}({places})"
        if appends:
            statement = f"CALL {name}({places}{', NULL' * 9})"
        chosen = lines if lines is not None else self._lines

        async def attempt(seconds: float) -> Any:
            try:
                return await chosen.ask(statement, arguments, seconds)
            except Trouble as trouble:
                if trouble.code == _ENDED:
                    raise LeaseLost(str(trouble)) from trouble
                if trouble.code == _TAKEN:
                    raise LeaseTaken(str(trouble)) from trouble
                raise

        return await self._patience.call(attempt, appends=appends)

    # ── logs ──────────────────────────────────────────────────────────────────────────────────────────

    async def append(self, batch: Sequence[Append]) -> Sequence[Appended | Refused]:
        """See `LogStore.append`."""
        found: Sequence[Sequence[Appended | Refused]] = await self._ask(self._appending, [*runs(batch)])
        return [answer for run in found for answer in run]

    async def _append(self, requests: Sequence[ItemRequest]) -> None:
        batch = codec.Batch([item for request in requests for item in request.item])
        now = self._idle_clock.monotonic()
        if now - self._appended >= _WRITER_SECONDS:
            # The database will soon forget a writer that was silent for so long, and that is no loss.
            self._writer, self._batch, self._stored = os.urandom(16), 0, 0
        self._appended = now
        self._batch += 1
        # A repeat goes under the same number, and is answered as the first time: see `append` in `sql/`.
        (row,) = await self._call(
            "append",
            self._now(),
            self._writer,
            self._batch,
            self._stored,
            self._epoch,
            *batch.columns,
            lines=self._appends,
            appends=True,
        )
        self._stored = self._batch
        found = batch.answers(row)
        for answer in found:
            if isinstance(answer, Appended):
                self._note(answer.position.epoch)
        start = 0
        for request in requests:
            request.answer = found[start : start + len(request.item)]
            start += len(request.item)

    def _note(self, epoch: Epoch) -> None:
        self._epoch = max(self._epoch, epoch)

    async def read(self, log: LogKey, after: Position, limit: int, max_bytes: int) -> Page:
        """See `LogStore.read`."""
        (page,) = await self._ask(self._reading, [(log, after, limit, max_bytes)])
        return cast("Page", page)

    async def _read(self, requests: Sequence[ItemRequest]) -> None:
        wanted = [request.item for request in requests]
        rows = await self._call(
            "read",
            [codec.place_of(log).digest for log, *_ in wanted],
            [codec.whole(after.epoch) for _, after, *_ in wanted],
            [codec.whole(after.offset) for _, after, *_ in wanted],
            [min(limit, 1 << 30) for _, _, limit, _ in wanted],
            [codec.whole(max_bytes) for *_, max_bytes in wanted],
        )
        for request, found in zip(requests, codec.by_place(rows, len(wanted)), strict=True):
            request.answer = codec.unpack_page(request.item[0], found)

    async def heads(self, logs: Sequence[LogKey]) -> Sequence[Head]:
        """See `LogStore.heads`."""
        return await self._ask(self._heading, logs)

    async def _heads(self, requests: Sequence[ItemRequest]) -> None:
        rows = await self._call("heads", [codec.place_of(request.item).digest for request in requests])
        for request, found in zip(requests, codec.by_place(rows, len(requests)), strict=True):
            request.answer = codec.unpack_head(found[0]) if found else codec.EMPTY

    async def trim(self, log: LogKey, through: int) -> None:
        """See `LogStore.trim`."""
        self._check_open()
        await self._call("trim", codec.place_of(log).digest, codec.whole(through))

    async def sweep(self) -> int:
        """See `LogStore.sweep`. Takes up where the last call ended."""
        self._check_open()
        await self._call("forget", self._now(), _FORGOTTEN)
        gone = 0
        # Each step is a transaction of its own, so that appends need not wait for the whole.
        for _ in range(_SWEEP_STEPS):
            ((self._swept, some),) = await self._call(
                "sweep", self._now(), self._swept, _SWEPT_LOGS, _SWEPT_MESSAGES, 0, 0
            )
            gone += some
            if gone or not self._swept:
                break
        return gone

    # ── cursors ───────────────────────────────────────────────────────────────────────────────────────

    async def cursor(self, log: LogKey, owner: str) -> Cursor:
        """See `CursorStore.cursor`."""
        (cursor,) = await self._ask(self._looking, [(log, owner)])
        return cast("Cursor", cursor)

    async def _look(self, requests: Sequence[ItemRequest]) -> None:
        rows = await self._call("look", self._now(), *_columns(requests))
        for request, (row,) in zip(requests, codec.by_place(rows, len(requests)), strict=True):
            _, epoch, at, number, attempted, leased = row
            request.answer = Cursor(Position(Epoch(epoch), at), number, attempted, leased)

    async def confirm(self, batch: Sequence[Confirm]) -> None:
        """See `CursorStore.confirm`."""
        await self._ask(self._confirming, batch)

    async def _confirm(self, requests: Sequence[ItemRequest]) -> None:
        columns = zip(*codec.furthest(request.item for request in requests), strict=True)
        await self._call("confirm", self._now(), *map(list, columns))

    async def attempt(self, log: LogKey, owner: str, through: int) -> None:
        """See `CursorStore.attempt`."""
        await self._ask(self._attempting, [(log, owner, through)])

    async def _attempt(self, requests: Sequence[ItemRequest]) -> None:
        highest: dict[tuple[LogKey, str], int] = {}
        for request in requests:
            log, owner, through = request.item
            highest[log, owner] = max(through, highest.get((log, owner), 0))
        once = [ItemRequest(key) for key in highest]
        await self._call("attempt", self._now(), *_columns(once), [codec.whole(each) for each in highest.values()])

    async def lease(self, log: LogKey, owner: str, holder: str, seconds: float) -> bool:
        """See `CursorStore.lease`."""
        return await self._pull(log, owner, holder, max(1, round(seconds * 1e6)))

    async def release(self, log: LogKey, owner: str, holder: str) -> None:
        """See `CursorStore.release`."""
        await self._pull(log, owner, holder, 0)

    async def _pull(self, log: LogKey, owner: str, holder: str, microseconds: int) -> bool:
        self._check_open()
        key = codec.place_of(log).digest, codec.owner_digest(owner)
        ((mine,),) = await self._call("pull", self._now(), *key, codec.readable(holder), microseconds)
        return bool(mine)

    # ── directory ─────────────────────────────────────────────────────────────────────────────────────

    async def join(self, node: NodeId, seconds: float) -> Lease:
        """See `DirectoryStore.join`."""
        (_, given), *_ = await self._lease(node, 0, seconds)
        return Lease(node, given)

    async def renew(self, lease: Lease, seconds: float) -> Sequence[Lease]:
        """See `DirectoryStore.renew`."""
        rows = await self._lease(lease.node, lease.incarnation, seconds)
        return [Lease(NodeId(node), incarnation) for node, incarnation in rows]

    async def _lease(self, node: NodeId, held: int, seconds: float) -> Sequence[tuple[str, int]]:
        self._check_open()
        return await self._call(  # type: ignore[no-any-return]
            "lease", self._now(), codec.readable(node), held, round(seconds * 1e6)
        )

    async def retire(self, lease: Lease) -> None:
        """See `DirectoryStore.retire`."""
        self._check_open()
        await self._call("retire", codec.readable(lease.node), lease.incarnation)

    async def enter(self, lease: Lease, users: Sequence[UserName]) -> None:
        """See `DirectoryStore.enter`."""
        await self._ask(self._moving, [(lease, True, user) for user in users])

    async def leave(self, lease: Lease, users: Sequence[UserName]) -> None:
        """See `DirectoryStore.leave`."""
        await self._ask(self._moving, [(lease, False, user) for user in users])

    async def _move(self, requests: Sequence[ItemRequest]) -> None:
        start = 0
        while start < len(requests):
            lease, here, _ = requests[start].item
            end = start
            while end < len(requests) and requests[end].item[:2] == (lease, here):
                end += 1
            users = [codec.user_digest(request.item[2]) for request in requests[start:end]]
            self._moves += 1
            await self._call(
                "move", self._mover, self._moves, here, users, codec.readable(lease.node), lease.incarnation
            )
            start = end

    async def locate(self, users: Sequence[UserName]) -> Mapping[UserName, Sequence[Lease]]:
        """See `DirectoryStore.locate`."""
        found = await self._ask(self._locating, users)
        return dict(zip(users, found, strict=True))

    async def _locate(self, requests: Sequence[ItemRequest]) -> None:
        rows = await self._call("locate", [codec.user_digest(request.item) for request in requests])
        for request, found in zip(requests, codec.by_place(rows, len(requests)), strict=True):
            request.answer = tuple(Lease(NodeId(node), incarnation) for _, node, incarnation in found)


def _size(request: ItemRequest) -> int:
    run: Sequence[Append] = request.item
    return sum(len(item.message.body) for item in run)


def _columns(requests: Sequence[ItemRequest]) -> tuple[list[bytes], list[str | None], list[str], list[bytes]]:
    places = [codec.place_of(request.item[0]) for request in requests]
    return (
        [place.digest for place in places],
        [place.user for place in places],
        [place.name for place in places],
        [codec.owner_digest(request.item[1]) for request in requests],
    )
