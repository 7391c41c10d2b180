"""The SQLite file: its schema, its statements, and what is kept in memory of each log. Used by one thread."""

import contextlib
import json
import os
import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Final

import apsw
import msgspec
import structlog

from postroom.channel import Retention
from postroom.destination import Topic, UserQueue
from postroom.errors import StoreUnavailable
from postroom.identity import UserName
from postroom.message import Message, StoredMessage
from postroom.position import START, Epoch, Head, LogKey, Position
from postroom.store.base import SHARED, Append, Appended, Cursor

_log = structlog.get_logger("postroom.store")

SCHEMA_VERSION: Final = 1
_PRAGMAS: Final = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "wal_autocheckpoint=4000",
    "cache_size=-65536",
    "temp_store=MEMORY",
)
_SCHEMA: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE log (
  id INTEGER PRIMARY KEY, user TEXT NOT NULL, name TEXT NOT NULL, retention TEXT NOT NULL,
  floor INTEGER NOT NULL DEFAULT 0, floor_number INTEGER NOT NULL DEFAULT 0, floor_epoch INTEGER NOT NULL DEFAULT 0,
  UNIQUE (user, name)
);
CREATE TABLE entry (
  id INTEGER PRIMARY KEY, log INTEGER NOT NULL, offset INTEGER NOT NULL, epoch INTEGER NOT NULL,
  previous INTEGER NOT NULL, number INTEGER NOT NULL, live INTEGER NOT NULL, size INTEGER NOT NULL,
  head BLOB NOT NULL, body BLOB NOT NULL
);
CREATE UNIQUE INDEX entry_by_log ON entry (log, offset, size);
CREATE TABLE cursor (
  log INTEGER NOT NULL, owner TEXT NOT NULL, epoch INTEGER NOT NULL, offset INTEGER NOT NULL,
  number INTEGER NOT NULL, attempted INTEGER NOT NULL, seen REAL NOT NULL, PRIMARY KEY (log, owner)
) WITHOUT ROWID;
CREATE TABLE used_key (
  log INTEGER NOT NULL, sender TEXT NOT NULL, key TEXT NOT NULL, epoch INTEGER NOT NULL, offset INTEGER NOT NULL,
  previous INTEGER NOT NULL, number INTEGER NOT NULL, digest BLOB NOT NULL, at INTEGER NOT NULL,
  PRIMARY KEY (log, sender, key)
) WITHOUT ROWID;
CREATE INDEX used_key_by_age ON used_key (at);
"""
_MIGRATIONS: Final = (_SCHEMA,)
"""What leads from each schema version to the next, from 0: nothing at all."""
_COLUMNS: Final = 9
_CHUNKS: Final = tuple(1 << power for power in range(9, -1, -1))
_INSERT: Final = {
    rows: "INSERT INTO entry (log, offset, epoch, previous, number, live, size, head, body) VALUES "
    + ",".join(["(" + ",".join("?" * _COLUMNS) + ")"] * rows)
    for rows in _CHUNKS
}
_INSERT_LOG: Final = {
    rows: "INSERT INTO log (id, user, name, retention) VALUES " + ",".join(["(?,?,?,?)"] * rows) for rows in _CHUNKS
}
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
_UPSERT: Final = {
    rows: "INSERT INTO cursor VALUES "
    + ",".join(["(?,?,?,?,?,?,?)"] * rows)
    + " ON CONFLICT (log, owner) DO UPDATE SET epoch=excluded.epoch, offset=excluded.offset,"
    " number=excluded.number, attempted=excluded.attempted, seen=excluded.seen"
    for rows in _CHUNKS
}
_MAX_STATES: Final = 200_000
_BUSY_MS: Final = 1000

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str | None, dict[str, str]]).decode


class Mark(msgspec.Struct):
    """How often a database was opened, and its generation."""

    database: str
    opens: int
    generation: int


_NO_MARK: Final = Mark("", 0, 0)


class LogState:
    """What an append needs to know of a log, so that it asks the file nothing."""

    __slots__ = (
        "bytes",
        "count",
        "cursors",
        "epoch",
        "floor",
        "floor_number",
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

    @property
    def head(self) -> Head:
        """The log's head."""
        last = Position(Epoch(self.epoch), self.offset) if self.number else START
        return Head(last, self.number, self.floor, self.floor_number)


class Database:
    """One connection, and the states of the logs that were touched lately."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock: IO[str] | None = None
        self._connection: apsw.Connection | None = None
        self._states: dict[LogKey, LogState] = {}
        self._rows: list[object] = []
        self._pending = 0
        self._cursors: dict[tuple[int, str], tuple[object, ...]] = {}
        self._new_logs: list[tuple[object, ...]] = []
        self._logs = 0
        self._beside = path.with_name(path.name + ".generation")
        self._mark: Mark | None = None
        self._suspect = False
        self._newest: tuple[object, ...] | None = None
        self._witness: tuple[object, ...] | None = None
        self.epoch = Epoch(1)

    # ── opening and closing ───────────────────────────────────────────────────────────────────────────

    def open(self) -> None:
        """Lock, open, migrate, and find out whether this file's past is whole. Raises StoreUnavailable."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            self._connect()
            self._count_opening()
        except (apsw.Error, OSError) as error:
            self.close()
            raise StoreUnavailable(f"cannot open {self._path}: {error}") from error
        except BaseException:
            self.close()
            raise

    def _take_lock(self) -> None:
        lock = open(self._path.with_name(self._path.name + ".lock"), "a+")  # noqa: SIM115
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise StoreUnavailable(
                f"{self._path} is in use by another process: a SQLite store serves one node; give each its own"
            ) from None
        self._lock = lock

    def _connect(self) -> None:
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
        self._connection = apsw.Connection(str(self._path))
        try:
            self._prepare()
        except BaseException:
            # A connection without its pragmas would promise what it does not keep.
            self._disconnect()
            raise

    def _prepare(self) -> None:
        assert self._connection is not None
        self._connection.set_busy_timeout(_BUSY_MS)
        for pragma in _PRAGMAS:
            self._run(f"PRAGMA {pragma}")
        ((found,),) = self._run("PRAGMA user_version")
        version = _int(found)
        if version > SCHEMA_VERSION:
            raise StoreUnavailable(
                f"{self._path} was written by a newer Postroom (its schema is {version}, this one knows"
                f" {SCHEMA_VERSION}): install that version again, or start with another file"
            )
        if version < SCHEMA_VERSION:
            with self._commit():
                for step in _MIGRATIONS[version:]:
                    for statement in step.split(";\n"):
                        self._run(statement)
                if not version:
                    self._run("INSERT INTO meta VALUES ('database', ?)", (secrets.token_hex(8),))
                    self._run("INSERT INTO meta VALUES ('opens', 0), ('generation', 1)")
                self._run(f"PRAGMA user_version={SCHEMA_VERSION}")

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(apsw.Error):
                connection.close(force=True)

    def _count_opening(self) -> None:
        """Raise the epoch where the file may be older than what was written last: a restored backup.

        The file and a small file beside it count the openings (and closings, and now and then in between), and
        name the database. A file behind its neighbour, or beside another's or none, has lost its tail, for all
        that anybody can know.
        """
        meta = {str(name): str(value) for name, value in self._run("SELECT name, value FROM meta")}
        beside = self._neighbour()
        self._mark = mark = Mark(meta["database"], int(meta["opens"]), int(meta["generation"]))
        fresh = not mark.opens and beside == _NO_MARK
        if not fresh and (beside.database != mark.database or beside.opens > mark.opens):
            mark.generation = max(mark.generation, beside.generation) + 1
            _log.warning("the store may have lost its newest messages: a new epoch begins", epoch=mark.generation)
        mark.opens = max(mark.opens, beside.opens)
        self.mark()
        self.epoch = Epoch(mark.generation)
        ((last,),) = self._run("SELECT max(id) FROM log")
        self._logs = 0 if last is None else _int(last)

    def _neighbour(self) -> Mark:
        try:
            return msgspec.json.decode(self._beside.read_bytes(), type=Mark)
        except (OSError, msgspec.DecodeError):
            return _NO_MARK

    def mark(self) -> None:
        """Count on, here and then in the file beside: a copy of this file made before is known to be old."""
        if (mark := self._mark) is None:
            return
        mark.opens += 1
        with self._commit():
            self._run(
                "INSERT OR REPLACE INTO meta VALUES ('opens', ?), ('generation', ?)", (mark.opens, mark.generation)
            )
        replacement = self._beside.with_suffix(".new")
        with open(replacement, "wb") as file:
            file.write(msgspec.json.encode(mark))
            file.flush()
            os.fsync(file.fileno())
        os.replace(replacement, self._beside)

    def close(self) -> None:
        """Close, so that the next opening needs no recovery."""
        if self._connection is not None:
            with contextlib.suppress(apsw.Error, OSError):
                self.mark()
                self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            self._disconnect()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def recover(self) -> bool:
        """After a failure: forget what memory says, and never trust a handle whose sync has failed.

        Whether the transaction that failed is certainly not in the file.
        """
        witness, self._witness = self._witness, None
        self._forget()
        self._disconnect()
        try:
            self._connect()
            return witness is None or not self._run("SELECT 1 FROM entry WHERE log=? AND offset=?", witness)
        except (apsw.Error, OSError, StoreUnavailable) as error:
            self._disconnect()
            _log.error("the store cannot be opened again", reason=str(error))
            return witness is None

    def _forget(self) -> None:
        self._states.clear()
        self._rows, self._pending = [], 0
        self._cursors.clear()
        self._new_logs.clear()
        self._suspect = True

    def _trust(self) -> None:
        """After a failure, bring all that the write-ahead log holds into the file before writing on.

        Pages whose sync has failed once are not written by the next sync; a later commit behind them in the
        write-ahead log would be lost with them.
        """
        if self._connection is None:
            self._connect()
        if self._suspect:
            assert self._connection is not None
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            self._suspect = False

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """What is done within is on the disk afterwards, or not done. After a failure call `recover`."""
        self._trust()
        with self._commit():
            yield
            self.flush()

    @contextlib.contextmanager
    def _commit(self) -> Iterator[None]:
        self._witness = None
        self._run("BEGIN IMMEDIATE")
        try:
            yield
            self._witness = self._newest
            self._run("COMMIT")
            self._witness = None
        except BaseException:
            with contextlib.suppress(apsw.Error):
                self._run("ROLLBACK")
            raise
        finally:
            self._newest = None

    def _run(self, statement: str, values: Sequence[object] = ()) -> list[tuple[object, ...]]:
        if self._connection is None:
            raise apsw.CantOpenError("the file is not open")
        return self._connection.execute(statement, tuple(values)).fetchall()

    # ── logs ──────────────────────────────────────────────────────────────────────────────────────────

    def state(self, log: LogKey) -> LogState:
        """What is known of `log`; created where it is new."""
        state = self._states.get(log)
        if state is None:
            self.prefetch([log])
            state = self._states[log]
        return state

    def prefetch(self, logs: Iterable[LogKey]) -> None:
        """Read the states of those `logs` that are not in memory, in one statement."""
        wanted = [*logs]
        missing = {log for log in wanted if log not in self._states}
        if not missing:
            return
        if len(self._states) > _MAX_STATES:
            # Never what the file does not know yet.
            self.flush()
            for log in [*islice(self._states, _MAX_STATES // 8)]:
                del self._states[log]
            missing = {log for log in wanted if log not in self._states}
        for log in missing:
            self._states[log] = LogState(log, 0, Retention())
        for user, name, *row in self._run(_LOAD, (_json([(log.user or "", log.name) for log in missing]),)):
            log = LogKey(UserName(str(user)) if user else None, str(name))
            self._states[log] = _state(log, row)

    def _known(self, state: LogState) -> None:
        """Give the log its row, with others."""
        self._logs += 1
        state.id = self._logs
        log = state.key
        self._new_logs.append((state.id, log.user or "", log.name, _json(state.retention)))

    def keep_retention(self, state: LogState, retention: Retention) -> None:
        """The log's channel says `retention` now."""
        if state.id and retention != state.retention:
            self._flush_logs()
            self._run("UPDATE log SET retention=? WHERE id=?", (_json(retention), state.id))
        state.retention = retention

    def add(self, state: LogState, item: Append, previous: int, size: int) -> None:
        """Write the entry that `state` now ends with, with others."""
        if not state.id:
            self._known(state)
        message = item.message
        head = _encode((message.sender, message.headers))
        self._rows += (
            state.id, state.offset, state.epoch, previous, state.number, item.live, size, head, message.body,
        )  # fmt: skip
        self._pending += 1

    def flush(self) -> None:
        """Write the entries that wait, in as few statements as they fit."""
        if self._new_logs:
            self._flush_logs()
        if self._pending:
            rows, self._rows, self._pending = self._rows, [], 0
            self._newest = (rows[-_COLUMNS], rows[1 - _COLUMNS])
            self._insert(_INSERT, _COLUMNS, rows)
        if self._cursors:
            cursors, self._cursors = self._cursors, {}
            self._insert(_UPSERT, 7, [value for row in cursors.values() for value in row])

    def _flush_logs(self) -> None:
        logs, self._new_logs = self._new_logs, []
        self._insert(_INSERT_LOG, 4, [value for row in logs for value in row])

    def _insert(self, statements: Mapping[int, str], columns: int, values: list[object]) -> None:
        """Rows, flat in `values`, by statements for so many rows each."""
        at, count = 0, len(values) // columns
        for chunk in _CHUNKS:
            while count >= chunk:
                self._run(statements[chunk], values[at : at + chunk * columns])
                at += chunk * columns
                count -= chunk

    def messages(self, state: LogState, log: LogKey, after: int, limit: int, max_bytes: int) -> list[StoredMessage]:
        """A page of the log."""
        destination = Topic(log.name) if log.user is None else UserQueue(UserName(log.user), log.name)
        out: list[StoredMessage] = []
        size = 0
        assert self._connection is not None
        for offset, epoch, previous, number, live, head, body in self._connection.execute(
            "SELECT offset, epoch, previous, number, live, head, body FROM entry"
            " WHERE log=? AND offset>? ORDER BY offset LIMIT ?",
            (state.id, after, limit),
        ):
            size += len(body)
            if out and size > max_bytes:
                break
            sender, headers = _decode(head)
            message = Message(destination, UserName(sender) if sender is not None else None, headers, body)
            out.append(StoredMessage(message, Position(Epoch(epoch), offset), previous, number, bool(live)))
        return out

    # ── removing ──────────────────────────────────────────────────────────────────────────────────────

    def confirmed(self, state: LogState) -> int:
        """Up to where every known owner has confirmed."""
        return min((cursor.confirmed.offset for cursor in state.cursors.values()), default=0)

    def drop_until(self, state: LogState, limit: int, max_messages: int, max_bytes: int) -> None:
        """Remove the oldest, none above `limit`, until no more than so many messages and bytes are left."""
        self.flush()
        through, count, size = 0, state.count, state.bytes
        assert self._connection is not None
        for offset, bytes_ in self._connection.execute(
            "SELECT offset, size FROM entry WHERE log=? AND offset<=? ORDER BY offset", (state.id, limit)
        ):
            if count <= max_messages and size <= max_bytes:
                break
            through, count, size = offset, count - 1, size - bytes_
        if through:
            self.trim(state, through)

    def trim(self, state: LogState, through: int) -> None:
        """Remove what is not above `through`; the floor rises."""
        self.flush()
        last = self._run(
            "SELECT offset, number, epoch FROM entry WHERE log=? AND offset<=? ORDER BY offset DESC LIMIT 1",
            (state.id, through),
        )
        if not last:
            return
        ((offset, number, epoch),) = last
        ((count, size),) = self._run(
            "SELECT count(*), sum(size) FROM entry WHERE log=? AND offset<=?", (state.id, through)
        )
        self._run("DELETE FROM entry WHERE log=? AND offset<=?", (state.id, through))
        self._run(
            "UPDATE log SET floor=?, floor_number=?, floor_epoch=? WHERE id=?",
            (offset, number, epoch, state.id),
        )
        state.floor, state.floor_number = _int(offset), _int(number)
        state.count -= _int(count)
        state.bytes -= _int(size)

    def sweep(self, after: int, now: float, rows: int) -> tuple[int, int]:
        """Look at up to `rows` entries from `after` on; where to go on, and how many were removed."""
        found = self._run("SELECT id, log, offset FROM entry WHERE id>? ORDER BY id LIMIT ?", (after, rows))
        highest: dict[int, int] = {}
        for _, log, offset in found:
            highest[_int(log)] = _int(offset)
        gone = 0
        for log_id, offset in highest.items():
            ((user, name),) = self._run("SELECT user, name FROM log WHERE id=?", (log_id,))
            state = self.state(LogKey(UserName(str(user)) if user else None, str(name)))
            kept = state.retention
            old = int((now - kept.seconds) * 1e6)
            confirmed = min(self.confirmed(state), int((now - kept.confirmed_seconds) * 1e6))
            before = state.count
            self.trim(state, min(offset, max(old, confirmed)))
            gone += before - state.count
        return (_int(found[-1][0]) if len(found) == rows else 0), gone

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

    def first_use(self, state: LogState, item: Append, since: int) -> tuple[Appended, bytes] | None:
        """Where the item's idempotency key was used first, and the digest of that body."""
        found = self._run(
            "SELECT epoch, offset, previous, number, digest FROM used_key WHERE log=? AND sender=? AND key=? AND at>=?",
            (state.id, item.message.sender or "", item.key, since),
        )
        if not found:
            return None
        ((epoch, offset, previous, number, digest),) = found
        position = Position(Epoch(_int(epoch)), _int(offset))
        assert isinstance(digest, bytes)
        return Appended(position, _int(previous), _int(number), duplicate=True), digest

    def remember(self, state: LogState, item: Append, at: Appended, digest: bytes, now: int) -> None:
        """Keep the item's idempotency key."""
        self._run(
            "INSERT OR REPLACE INTO used_key VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                state.id,
                item.message.sender or "",
                item.key,
                at.position.epoch,
                at.position.offset,
                at.previous,
                at.number,
                digest,
                now,
            ),
        )

    def forget(self, keys_before: int, devices_before: float) -> None:
        """Remove keys past their window, and cursors of devices that were not seen for long."""
        self._run("DELETE FROM used_key WHERE at<?", (keys_before,))
        for log, owner in self._run(
            "SELECT log, owner FROM cursor WHERE seen<? AND owner<>?", (devices_before, SHARED)
        ):
            self._run("DELETE FROM cursor WHERE log=? AND owner=?", (log, owner))
            for state in self._states.values():
                if state.id == log:
                    state.cursors.pop(str(owner), None)


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
