"""The logs in the SQLite file: what memory keeps of them, and how many changes become few statements.

A transaction gathers its changes and writes them at its end, for each step of a statement may cost the thread
Python's lock. What is asked of the file in between is asked after a `flush`.
"""

import json
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final, NamedTuple

import msgspec

from postroom.channel import Retention
from postroom.destination import Topic, UserQueue
from postroom.identity import UserName
from postroom.message import Message, StoredMessage
from postroom.position import START, Epoch, Head, LogKey, Position
from postroom.store.base import SHARED, Append, Appended, Cursor
from postroom.store.sqlite_file import Database, Statements

_LOAD: Final = """
SELECT log.user, log.name, log.id, log.retention, log.floor, log.floor_number, log.floor_epoch,
  last.offset, last.number, last.epoch,
  (SELECT count(*) FROM entry WHERE entry.log = log.id),
  (SELECT sum(size) FROM entry WHERE entry.log = log.id),
  (SELECT json_group_array(json_array(owner, epoch, offset, number, attempted))
   FROM cursor WHERE cursor.log = log.id)
FROM json_each(?) AS wanted
CROSS JOIN log ON log.user = wanted.value ->> 0 AND log.name = wanted.value ->> 1
LEFT JOIN entry AS last
  ON last.id = (SELECT id FROM entry WHERE entry.log = log.id ORDER BY offset DESC LIMIT 1)
"""
_ENTRY_COLUMNS: Final = 9
_ADD_ENTRIES: Final = Statements(
    _ENTRY_COLUMNS,
    "INSERT INTO entry (log, offset, epoch, previous, number, live, size, head, body) VALUES {rows}",
)
_ADD_LOGS: Final = Statements(4, "INSERT INTO log (id, user, name, retention) VALUES {rows}")
_SET_CURSORS: Final = Statements(
    7,
    "INSERT INTO cursor VALUES {rows} ON CONFLICT (log, owner) DO UPDATE SET epoch=excluded.epoch,"
    " offset=excluded.offset, number=excluded.number, attempted=excluded.attempted, seen=excluded.seen",
)
_ADD_KEYS: Final = Statements(9, "INSERT OR REPLACE INTO used_key VALUES {rows}")
_FIND_KEYS: Final = Statements(
    3,
    "WITH wanted (log, sender, key) AS (VALUES {rows}) SELECT used_key.* FROM wanted CROSS JOIN used_key"
    " ON used_key.log=wanted.log AND used_key.sender=wanted.sender AND used_key.key=wanted.key",
)
_REMOVE: Final = """
DELETE FROM entry WHERE id IN (
  SELECT entry.id FROM json_each(?) AS gone
  CROSS JOIN entry ON entry.log = gone.value ->> 0 AND entry.offset <= gone.value ->> 1)
"""
_RAISE_FLOORS: Final = """
UPDATE log SET floor = gone.value ->> 1, floor_number = gone.value ->> 2, floor_epoch = gone.value ->> 3
FROM json_each(?) AS gone WHERE log.id = gone.value ->> 0
"""
_AGES: Final = """
SELECT log.user, log.name, seen.low, seen.high, seen.number, seen.size, seen.count, seen.last
FROM (
  SELECT log, min(offset) AS low, max(offset) AS high, min(number) AS number, sum(size) AS size,
    count(*) AS count, max(id) AS last
  FROM (SELECT id, log, offset, number, size FROM entry WHERE id > ? ORDER BY id LIMIT ?) GROUP BY log
) AS seen CROSS JOIN log ON log.id = seen.log
"""
_OLD_KEYS: Final = """
DELETE FROM used_key WHERE (log, sender, key) IN (
  SELECT log, sender, key FROM used_key WHERE at < ? ORDER BY at LIMIT ?)
"""
_DEVICES: Final = """
SELECT cursor.log, cursor.owner, cursor.seen, log.user, log.name
FROM (SELECT log, owner, seen FROM cursor WHERE (log, owner) > (?, ?) ORDER BY log, owner LIMIT ?) AS cursor
CROSS JOIN log ON log.id = cursor.log
"""
_MAX_STATES: Final = 200_000
_FRONT: Final = 256

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str | None, dict[str, str]]).decode


class Used(NamedTuple):
    """Where an idempotency key was used first, the digest of that body, and when (microseconds)."""

    appended: Appended
    digest: bytes
    at: int


class LogState:
    """What an append needs to know of a log, so that it asks the file nothing."""

    __slots__ = (
        "bytes",
        "count",
        "cursors",
        "epoch",
        "floor",
        "floor_number",
        "front",
        "id",
        "key",
        "number",
        "offset",
        "retention",
    )

    def __init__(self, key: LogKey, id: int, retention: Retention) -> None:
        self.key = key
        self.id = id  # 0: the log has no row yet
        self.retention = retention
        self.epoch = 0
        self.offset = 0
        self.number = 0
        self.floor = 0
        self.floor_number = 0
        self.count = 0
        self.bytes = 0
        self.cursors: dict[str, Cursor] = {}
        self.front: deque[tuple[int, int]] = deque()  # offset and size of some of the oldest, in order

    @property
    def head(self) -> Head:
        """The log's head."""
        last = Position(Epoch(self.epoch), self.offset) if self.number else START
        return Head(last, self.number, self.floor, self.floor_number)


class Logs:
    """The logs that were touched lately, and what of them the file does not know yet."""

    def __init__(self, file: Database) -> None:
        self._file = file
        self._states: dict[LogKey, LogState] = {}
        self._top = 0
        self.forget()

    def forget(self) -> None:
        """Begin anew with what the file says: after opening it, and after a transaction that failed."""
        self._states.clear()
        self._top = -1
        self._new: list[object] = []
        self._entries: list[object] = []
        self._cursors: dict[tuple[int, str], tuple[object, ...]] = {}
        self._dropped: dict[int, LogState] = {}
        self._keys: list[object] = []
        self._used: dict[tuple[int, str, str], Used] = {}

    # ── states ────────────────────────────────────────────────────────────────────────────────────────

    def state(self, log: LogKey) -> LogState:
        """What is known of `log`; created where it is new."""
        state = self._states.get(log)
        if state is None:
            self.prefetch([log])
            state = self._states[log]
        return state

    def prefetch(self, logs: Iterable[LogKey]) -> None:
        """Read the states of those `logs` that are not in memory, in one statement."""
        wanted = {*logs}
        missing = wanted.difference(self._states)
        if not missing:
            return
        if len(self._states) > _MAX_STATES:
            # Never what the file does not know yet.
            self.flush()
            for log in [*islice(self._states, _MAX_STATES // 8)]:
                del self._states[log]
            missing = wanted.difference(self._states)
        for log in missing:
            self._states[log] = LogState(log, 0, Retention())
        text = _json([(log.user or "", log.name) for log in missing])
        for user, name, *row in self._file.run(_LOAD, (text,)):
            log = _key(user, name)
            self._states[log] = _state(log, row)

    def _known(self, state: LogState) -> None:
        """Give the log its row, with others."""
        if self._top < 0:
            ((last,),) = self._file.run("SELECT coalesce(max(id), 0) FROM log")
            self._top = _int(last)
        self._top += 1
        state.id = self._top
        self._new += (state.id, state.key.user or "", state.key.name, _json(state.retention))

    def flush(self) -> None:
        """Write what waits."""
        file = self._file
        if self._new:
            rows, self._new = self._new, []
            file.run_for(_ADD_LOGS, rows)
        if self._entries:
            rows, self._entries = self._entries, []
            file.newest = (_int(rows[-_ENTRY_COLUMNS]), _int(rows[1 - _ENTRY_COLUMNS]))
            file.run_for(_ADD_ENTRIES, rows)
        if self._dropped:
            dropped, self._dropped = self._dropped, {}
            text = _json([(s.id, s.floor, s.floor_number, s.epoch) for s in dropped.values()])
            file.run(_REMOVE, (text,))
            file.run(_RAISE_FLOORS, (text,))
        if self._cursors:
            cursors, self._cursors = self._cursors, {}
            file.run_for(_SET_CURSORS, [value for row in cursors.values() for value in row])
        if self._keys:
            rows, self._keys = self._keys, []
            file.run_for(_ADD_KEYS, rows)

    def finish(self) -> None:
        """Write what waits, at the end of a transaction."""
        self.flush()
        self._used.clear()

    # ── appending and reading ─────────────────────────────────────────────────────────────────────────

    def keep_retention(self, state: LogState, retention: Retention) -> None:
        """The log's channel says `retention` now."""
        if state.id and retention != state.retention:
            self.flush()
            self._file.run("UPDATE log SET retention=? WHERE id=?", (_json(retention), state.id))
        state.retention = retention

    def add(self, state: LogState, item: Append, previous: int, size: int) -> None:
        """Write the entry that `state` now ends with."""
        if not state.id:
            self._known(state)
        message = item.message
        head = _encode((message.sender, message.headers))
        self._entries += (
            state.id, state.offset, state.epoch, previous, state.number, item.live, size, head, message.body,
        )  # fmt: skip

    def messages(self, state: LogState, after: Position, limit: int, max_bytes: int) -> list[StoredMessage]:
        """A page of the log."""
        log, start = state.key, after.offset
        if after.epoch < state.epoch:
            # A later epoch may have begun below this offset, after the log's end was lost.
            ((start,),) = self._file.rows(
                "SELECT coalesce(max(offset), 0) FROM entry WHERE log=? AND offset<=? AND epoch<=?",
                (state.id, after.offset, after.epoch),
            )
        destination = Topic(log.name) if log.user is None else UserQueue(log.user, log.name)
        out: list[StoredMessage] = []
        size = 0
        for offset, epoch, previous, number, live, head, body in self._file.rows(
            "SELECT offset, epoch, previous, number, live, head, body FROM entry"
            " WHERE log=? AND offset>? ORDER BY offset LIMIT ?",
            (state.id, start, limit),
        ):
            size += len(body)
            if out and size > max_bytes:
                break
            sender, headers = _decode(head)
            message = Message(destination, UserName(sender) if sender is not None else None, headers, body)
            out.append(StoredMessage(message, Position(Epoch(epoch), offset), previous, number, bool(live)))
        return out

    # ── removing ──────────────────────────────────────────────────────────────────────────────────────

    def make_room(self, state: LogState, limit: int, max_messages: int, max_bytes: int) -> None:
        """Remove the oldest, none above `limit`, until no more than so many messages and bytes are left."""
        front = state.front
        while state.count > max_messages or state.bytes > max_bytes:
            if not front:
                self._look_at_front(state)
            if front[0][0] > limit:
                return
            offset, size = front.popleft()
            self._drop(state, offset, 1, size)

    def _look_at_front(self, state: LogState) -> None:
        self.flush()
        for offset, size in self._file.run(
            "SELECT offset, size FROM entry WHERE log=? AND offset>? ORDER BY offset LIMIT ?",
            (state.id, state.floor, _FRONT),
        ):
            state.front.append((_int(offset), _int(size)))

    def _drop(self, state: LogState, through: int, count: int, size: int) -> None:
        # Only the oldest ever go, and numbers have no holes.
        state.floor, state.floor_number = through, state.floor_number + count
        state.count -= count
        state.bytes -= size
        self._dropped[state.id] = state

    def trim(self, state: LogState, through: int) -> int:
        """Remove what is not above `through`; how many went. The floor rises."""
        if not state.count or through <= state.floor:
            return 0
        if self._entries or state.id in self._dropped:
            self.flush()
        ((last, count, size),) = self._file.run(
            "SELECT max(offset), count(*), sum(size) FROM entry WHERE log=? AND offset<=?", (state.id, through)
        )
        if not count:
            return 0
        state.front.clear()
        self._drop(state, _int(last), _int(count), _int(size))
        return _int(count)

    def sweep(self, after: int, now: float, rows: int) -> tuple[int, int]:
        """Look at up to `rows` entries from the id `after` on; where to go on, and how many were removed."""
        self.flush()
        found = self._file.run(_AGES, (after, rows))
        self.prefetch(_key(user, name) for user, name, *_ in found)
        gone = 0
        for user, name, *seen in found:
            low, high, number, size, count, _ = map(_int, seen)
            state = self.state(_key(user, name))
            through = expired(state, now)
            if through >= high and number == state.floor_number + 1:
                # What was looked at is the log's front, and all of it goes: nothing need be asked.
                state.front.clear()
                self._drop(state, high, count, size)
                gone += count
            elif through >= low:
                gone += self.trim(state, min(high, through))
            if gone > 2 * rows:
                return after, gone
        seen_rows = sum(_int(row[-2]) for row in found)
        return (max(_int(row[-1]) for row in found) if seen_rows == rows else 0), gone

    # ── cursors and keys ──────────────────────────────────────────────────────────────────────────────

    def set_cursor(self, state: LogState, owner: str, cursor: Cursor, now: float) -> None:
        """Write a cursor; it was seen `now`."""
        if not state.id:
            self._known(state)
        at = cursor.confirmed
        self._cursors[state.id, owner] = (
            state.id, owner, at.epoch, at.offset, cursor.number, cursor.attempted, now,
        )  # fmt: skip
        state.cursors[owner] = cursor

    def forget_devices(self, after: tuple[int, str], before: float, rows: int) -> tuple[int, str]:
        """Look at up to `rows` cursors and remove those of devices not seen since; where to go on."""
        self.flush()
        found = self._file.run(_DEVICES, (*after, rows))
        for log, owner, seen, user, name in found:
            assert isinstance(seen, float)
            if owner != SHARED and seen < before:
                self._file.run("DELETE FROM cursor WHERE log=? AND owner=?", (log, owner))
                if (state := self._states.get(_key(user, name))) is not None:
                    state.cursors.pop(str(owner), None)
        return (_int(found[-1][0]), str(found[-1][1])) if len(found) == rows else (0, "")

    def forget_keys(self, before: int, rows: int) -> None:
        """Remove up to `rows` of the keys last used before then."""
        self.flush()
        self._file.run(_OLD_KEYS, (before, rows))

    def prefetch_keys(self, batch: Iterable[Append]) -> None:
        """Find out which of the batch's idempotency keys were used, in one statement."""
        wanted: list[object] = []
        for item in batch:
            if item.key is not None and (state := self.state(item.log)).id:
                wanted += (state.id, item.message.sender or "", item.key)
        for log, sender, key, epoch, offset, previous, number, digest, at in self._file.run_for(_FIND_KEYS, wanted):
            assert isinstance(digest, bytes)
            position = Position(Epoch(_int(epoch)), _int(offset))
            used = Used(Appended(position, _int(previous), _int(number), duplicate=True), digest, _int(at))
            # What this transaction used itself is newer.
            self._used.setdefault((_int(log), str(sender), str(key)), used)

    def used(self, state: LogState, item: Append) -> Used | None:
        """The first use of the item's key, which was fetched before."""
        return self._used.get((state.id, item.message.sender or "", item.key or ""))

    def remember(self, state: LogState, item: Append, at: Appended, digest: bytes, now: int) -> None:
        """Keep the item's idempotency key."""
        sender, key, where = item.message.sender or "", item.key or "", at.position
        again = Appended(where, at.previous, at.number, duplicate=True)
        self._used[state.id, sender, key] = Used(again, digest, now)
        self._keys += (
            state.id, sender, key, where.epoch, where.offset, at.previous, at.number, digest, now,
        )  # fmt: skip


def confirmed(state: LogState) -> int:
    """Up to where every known owner has confirmed."""
    return min((cursor.confirmed.offset for cursor in state.cursors.values()), default=0)


def expired(state: LogState, now: float) -> int:
    """Up to where the log's retention keeps nothing any longer."""
    old = int((now - state.retention.seconds) * 1e6)
    return max(old, min(confirmed(state), int((now - state.retention.confirmed_seconds) * 1e6)))


def _key(user: object, name: object) -> LogKey:
    return LogKey(UserName(str(user)) if user else None, str(name))


def _state(log: LogKey, row: Sequence[object]) -> LogState:
    id, retention, floor, floor_number, floor_epoch, offset, number, epoch, count, size, cursors = row
    state = LogState(log, _int(id), msgspec.json.decode(str(retention), type=Retention))
    state.floor, state.floor_number = _int(floor), _int(floor_number)
    if offset is None:
        state.offset, state.number, state.epoch = state.floor, state.floor_number, _int(floor_epoch)
    else:
        state.offset, state.number, state.epoch = _int(offset), _int(number), _int(epoch)
        state.count, state.bytes = _int(count), _int(size)
    for owner, at_epoch, at, at_number, attempted in json.loads(str(cursors)):
        state.cursors[owner] = Cursor(Position(Epoch(at_epoch), at), at_number, attempted)
    return state


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value
