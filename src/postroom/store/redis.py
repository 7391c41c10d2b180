"""Redis and Valkey: logs, cursors and the directory in one place that all nodes reach. See `redis_link` for the URL.

All is done by the scripts in `lua/`, which are atomic, and each of which serves many requests at once.
"""

import asyncio
import itertools
import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

import structlog

from postroom.clock import Clock, SystemClock
from postroom.errors import LeaseLost, LeaseTaken, OutcomeUnknown, Refused, StoreUnavailable
from postroom.findings import Finding
from postroom.identity import NodeId, UserName
from postroom.position import Head, LogKey, Position
from postroom.redis_link import parse_url
from postroom.store import redis_codec as codec
from postroom.store.base import Append, Appended, Confirm, Cursor, Lease, Page
from postroom.store.lanes import Lane, answers
from postroom.store.redis_calls import Caller, Kind, ScriptRequest, size_of
from postroom.store.redis_rights import lacking
from postroom.store.redis_servers import Script, Server, Servers, demand, findings
from postroom.store.together import runs

_log = structlog.get_logger("postroom.store")

_SMALL: Final = "allow-oom"
"""What keeps the store usable, or makes it smaller, is done where memory is short too."""
_READS: Final = "no-writes"

_APPEND: Final = Script("append")
_READ: Final = Script("read", _READS)
_HEADS: Final = Script("heads", _READS)
_CURSORS: Final = Script("cursors", _SMALL)
_TRIM: Final = Script("trim", _SMALL)
_PULL: Final = Script("pull", _SMALL)
_NODES: Final = Script("nodes", _SMALL)
_ENTRIES: Final = Script("entries", _SMALL)
_SWEEP: Final = Script("sweep", _SMALL)

_AHEAD_SECONDS: Final = 400 * 86_400.0
"""How far ahead of this node's clock an epoch may be, to be believed."""

_PAGES_AT_ONCE: Final = 32
_SCANNED: Final = 2048
_SCANS: Final = 25
_SWEPT_KEYS: Final = 1024
_SWEPT_AT_ONCE: Final = 256


class RedisStore:
    """Logs, cursors and the directory on one server, behind Sentinel, or on a Cluster.

    What it promises is what the server keeps: see the guide for the settings that it wants.
    """

    durable = True

    def __init__(self, url: str, *, clock: Clock | None = None) -> None:
        self._url = parse_url(url)
        self._clock = clock
        options = self._url.options
        self._prefix = options.prefix
        self._swept = (re.sub(r"([*?\[\]\\])", r"\\\1", self._prefix) + ":{*}:[hd]*").encode()
        self._servers = Servers(self._url)
        self._caller = Caller(
            self._servers,
            timeout=options.timeout,
            replicas=options.wait_replicas,
            wait=options.wait_timeout,
            now=self._now,
        )
        self._epoch = 0
        # From a place of its own among 2**64 no two nodes come to the same number.
        first = int.from_bytes(os.urandom(8), "big")
        self._ids = ((count % 2**64).to_bytes(8, "big") for count in itertools.count(first))
        self._tasks = asyncio.TaskGroup()
        self._scanned: dict[str, int] = {}
        self._closed = True
        self._appends = self._lane(
            Kind(_APPEND, self._unpack_appended, arguments=lambda: (b"%d" % self._epoch,), wrote=True, appends=True), 1
        )
        some = max(1, min(4, options.pool // 2))
        self._reads = self._lane(Kind(_READ, _as_it_is, at_once=_PAGES_AT_ONCE), some)
        self._heads = self._lane(Kind(_HEADS, codec.unpack_heads), some)
        self._cursors = self._lane(Kind(_CURSORS, codec.unpack_cursors), some)
        self._trims = self._lane(Kind(_TRIM, _as_it_is), 1)
        self._pulls = self._lane(Kind(_PULL, _as_it_is), some)
        self._nodes = self._lane(Kind(_NODES, lambda reply: [reply], at_once=1), 1)
        # One at a time, so that what enters and leaves at once does so in order.
        self._entries = self._lane(Kind(_ENTRIES, _as_it_is), 1)
        self._lookups = self._lane(Kind(_ENTRIES, _as_it_is), some)

    def _lane(self, kind: Kind, workers: int) -> Lane[ScriptRequest]:
        serve = partial(self._caller.call, kind)
        at_once, max_size = kind.at_once, kind.max_bytes
        return Lane(serve, self._tasks, workers=workers, at_once=at_once, max_size=max_size, size=size_of)

    def _wall(self) -> float:
        return (self._clock if self._clock is not None else SystemClock()).wall()

    def _now(self) -> int:
        return int(self._clock.wall() * 1e6) if self._clock is not None else 0

    async def __aenter__(self) -> Self:
        """Find the servers. Raises StoreUnavailable."""
        try:
            await self._servers.refresh()
            demand([*await findings(self._servers), *await self._rights()])
        except BaseException:
            await self._servers.close()
            raise
        await self._tasks.__aenter__()
        self._closed = False
        return self

    async def check(self) -> Sequence[Finding]:
        """See `Checks`. The user's rights are tried too."""
        try:
            await self._servers.refresh()
            found = [*await findings(self._servers), *await self._rights()]
            return found
        finally:
            await self._servers.close()

    async def _rights(self) -> Sequence[Finding]:
        return await lacking(self._servers, self._prefix, waits=bool(self._url.options.wait_replicas))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish what was accepted, then close the connections."""
        self._closed = True
        try:
            await self._tasks.__aexit__(None, None, None)
        finally:
            await self._servers.close()

    async def _ask(self, lane: Lane[ScriptRequest], requests: Sequence[ScriptRequest]) -> list[Any]:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        await lane.ask(requests)
        return answers(requests)

    def _place(self, log: LogKey) -> codec.Place:
        return codec.place_of(self._prefix, log)

    # ── logs ──────────────────────────────────────────────────────────────────────────────────────────

    async def append(self, batch: Sequence[Append]) -> Sequence[Appended | Refused]:
        """See `LogStore.append`."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        requests: list[ScriptRequest] = []
        places: list[tuple[ScriptRequest, int]] = []
        for run in runs(batch):
            if len(run) == 1:
                place = self._place(run[0].log)
                request = ScriptRequest(place.tag, codec.pack_append(run[0], place, next(self._ids)))
                requests.append(request)
                places.append((request, 0))
            else:
                tied = self._tied(run)
                requests += dict.fromkeys(request for request, _ in tied)
                places += tied
        await self._appends.ask(requests)
        failed = [request.error for request in requests if request.error is not None]
        if not failed:
            return [r.answer if len(r.items) == 1 else r.answer[at] for r, at in places]
        if len(failed) == len(requests) and not any(isinstance(error, OutcomeUnknown) for error in failed):
            raise failed[0]
        raise OutcomeUnknown(str(failed[0])) from failed[0]

    def _tied(self, run: Sequence[Append]) -> list[tuple[ScriptRequest, int]]:
        """For each item the request that it is part of, and its place there: one for the run, or one a slot."""
        packed: dict[int, list[bytes]] = {}
        tags: dict[int, bytes] = {}
        places: list[tuple[int, int]] = []
        for item in run:
            place = self._place(item.log)
            share = self._servers.share(place.tag)
            items = packed.setdefault(share, [])
            tags.setdefault(share, place.tag)
            places.append((share, len(items)))
            items.append(codec.pack_append(item, place, next(self._ids), tied=bool(items)))
        made = {share: ScriptRequest(tags[share], *items) for share, items in packed.items()}
        return [(made[share], at) for share, at in places]

    def _unpack_appended(self, reply: Any) -> Sequence[Appended | Refused]:
        found = codec.unpack_appended(reply)
        for answer in found:
            if isinstance(answer, Appended):
                self._note(answer.position)
        return found

    def _note(self, position: Position) -> None:
        self._epoch = max(self._epoch, position.epoch)

    async def read(self, log: LogKey, after: Position, limit: int, max_bytes: int) -> Page:
        """See `LogStore.read`."""
        # Other nodes have told it, or a client claims it: an epoch begins as the time in seconds.
        if after.epoch < self._wall() + _AHEAD_SECONDS:
            self._note(after)
        place = self._place(log)
        (found,) = await self._ask(
            self._reads, [ScriptRequest(place.tag, codec.pack_read(place, after, limit, max_bytes))]
        )
        return codec.unpack_page(log, found)

    async def heads(self, logs: Sequence[LogKey]) -> Sequence[Head]:
        """See `LogStore.heads`."""
        places = [self._place(log) for log in logs]
        return await self._ask(self._heads, [ScriptRequest(place.tag, codec.pack_log(place)) for place in places])

    async def trim(self, log: LogKey, through: int) -> None:
        """See `LogStore.trim`."""
        place = self._place(log)
        await self._ask(self._trims, [ScriptRequest(place.tag, codec.pack_trim(place, through))])

    async def sweep(self) -> int:
        """See `LogStore.sweep`. Takes up where the last call ended."""
        _, highest, *leases = await self._node_call("live")
        live, gone = b"\n".join(leases), 0
        for server in self._servers.all:
            left = _SWEPT_KEYS
            for _ in range(_SCANS):
                keys = await self._scan(server)
                for some in (keys[start : start + _SWEPT_AT_ONCE] for start in range(0, len(keys), _SWEPT_AT_ONCE)):
                    gone += int(await server.ask(b"%d" % self._now(), highest, live, *some, script=_SWEEP))
                left -= len(keys)
                if left <= 0 or not self._scanned[server.name]:
                    break
        return gone

    async def _scan(self, server: Server) -> Sequence[bytes]:
        position = b"%d" % self._scanned.get(server.name, 0)
        position, keys = await server.ask(b"SCAN", position, b"MATCH", self._swept, b"COUNT", b"%d" % _SCANNED)
        self._scanned[server.name] = int(position)
        return keys  # type: ignore[no-any-return]

    # ── cursors ───────────────────────────────────────────────────────────────────────────────────────

    async def cursor(self, log: LogKey, owner: str) -> Cursor:
        """See `CursorStore.cursor`."""
        place = self._place(log)
        (cursor,) = await self._ask(self._cursors, [ScriptRequest(place.tag, codec.pack_look(place, owner))])
        return cursor  # type: ignore[no-any-return]

    async def confirm(self, batch: Sequence[Confirm]) -> None:
        """See `CursorStore.confirm`."""
        places = [self._place(item.log) for item in batch]
        await self._ask(
            self._cursors,
            [ScriptRequest(at.tag, codec.pack_confirm(at, item)) for at, item in zip(places, batch, strict=True)],
        )

    async def attempt(self, log: LogKey, owner: str, through: int) -> None:
        """See `CursorStore.attempt`."""
        place = self._place(log)
        await self._ask(self._cursors, [ScriptRequest(place.tag, codec.pack_attempt(place, owner, through))])

    async def lease(self, log: LogKey, owner: str, holder: str, seconds: float) -> bool:
        """See `CursorStore.lease`."""
        return await self._pull(log, owner, holder, seconds)

    async def release(self, log: LogKey, owner: str, holder: str) -> None:
        """See `CursorStore.release`."""
        await self._pull(log, owner, holder, 0)

    async def _pull(self, log: LogKey, owner: str, holder: str, seconds: float) -> bool:
        place = self._place(log)
        (mine,) = await self._ask(
            self._pulls, [ScriptRequest(place.tag, codec.pack_pull(place, owner, holder, seconds))]
        )
        return bool(mine)

    # ── directory ─────────────────────────────────────────────────────────────────────────────────────

    async def join(self, node: NodeId, seconds: float) -> Lease:
        """See `DirectoryStore.join`."""
        _, last, *_ = await self._node_call("join", node, 0, seconds)
        return Lease(node, int(last))

    async def renew(self, lease: Lease, seconds: float) -> Sequence[Lease]:
        """See `DirectoryStore.renew`."""
        outcome, *rest = await self._node_call("renew", lease.node, lease.incarnation, seconds)
        if outcome == b"taken":
            raise LeaseTaken(f"another node took the name {lease.node}")
        if outcome == b"ended":
            raise LeaseLost("the lease has ended")
        return [codec.unpack_lease(each) for each in rest[1:]]

    async def retire(self, lease: Lease) -> None:
        """See `DirectoryStore.retire`."""
        await self._node_call("retire", lease.node, lease.incarnation)

    async def _node_call(self, what: str, node: str = "", incarnation: int = 0, seconds: float = 0) -> list[bytes]:
        key = f"{self._prefix}:nodes".encode()
        (answer,) = await self._ask(
            self._nodes, [ScriptRequest(key, codec.pack_node_call(key, what, node, incarnation, seconds))]
        )
        return answer  # type: ignore[no-any-return]

    async def enter(self, lease: Lease, users: Sequence[UserName]) -> None:
        """See `DirectoryStore.enter`."""
        await self._ask(self._entries, self._entry_requests(codec.ENTER, users, lease))

    async def leave(self, lease: Lease, users: Sequence[UserName]) -> None:
        """See `DirectoryStore.leave`."""
        await self._ask(self._entries, self._entry_requests(codec.LEAVE, users, lease))

    async def locate(self, users: Sequence[UserName]) -> Mapping[UserName, Sequence[Lease]]:
        """See `DirectoryStore.locate`."""
        found = await self._ask(self._lookups, self._entry_requests(codec.LOCATE, users))
        return {user: tuple(map(codec.unpack_lease, each)) for user, each in zip(users, found, strict=True)}

    def _entry_requests(self, what: int, users: Sequence[UserName], lease: Lease | None = None) -> list[ScriptRequest]:
        homes = [codec.home_of(self._prefix, user) for user in users]
        return [ScriptRequest(home.tag, codec.pack_entry(what, home, lease)) for home in homes]


def _as_it_is(reply: Any) -> Sequence[Any]:
    return reply if isinstance(reply, list) else list(reply)
