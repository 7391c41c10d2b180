"""The SQLite file: its lock, schema, transactions, and whether its past is whole. Used by one thread."""

import contextlib
import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final

import apsw
import msgspec
import structlog

from postroom.errors import StoreUnavailable
from postroom.findings import Finding, advice
from postroom.position import Epoch

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
_CHUNKS: Final = tuple(1 << power for power in range(9, -1, -1))
_BUSY_MS: Final = 1000
_ENOUGH: Final = 500_000_000
"""Bytes that should be free on the disk."""


class Statements:
    """One statement, for as many rows of so many columns as there are: its `{rows}` becomes their places."""

    __slots__ = ("columns", "texts")

    def __init__(self, columns: int, text: str) -> None:
        row = "(" + ",".join("?" * columns) + ")"
        self.columns = columns
        self.texts = [(chunk, text.replace("{rows}", ",".join([row] * chunk))) for chunk in _CHUNKS]


class Mark(msgspec.Struct):
    """How often a database was opened, and its generation."""

    database: str
    opens: int
    generation: int


_NO_MARK: Final = Mark("", 0, 0)


class Database:
    """One connection to the file, which no other process has open.

    `newest` is set, while a transaction is written, to the log and offset of its newest entry: whether that is
    there tells after a failure whether the transaction was.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock: IO[str] | None = None
        self._connection: apsw.Connection | None = None
        self._beside = path.with_name(path.name + ".generation")
        self._mark: Mark | None = None
        self._suspect = False
        self.newest: tuple[int, int] | None = None
        self._witness: tuple[int, int] | None = None
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

    def findings(self) -> Sequence[Finding]:
        """What would keep the file from being opened, or filled; makes no file."""
        folder = self._path.parent
        while not folder.exists():
            folder = folder.parent
        if not os.access(folder, os.W_OK | os.X_OK):
            return [Finding(f"{folder} cannot be written to by this user")]
        found = []
        if (free := shutil.disk_usage(folder).free) < _ENOUGH:
            found.append(advice(f"{free / 1e6:.0f} MB are free on the disk of {folder}"))
        if self._path.exists():
            try:
                with contextlib.closing(apsw.Connection(str(self._path), flags=apsw.SQLITE_OPEN_READWRITE)) as file:
                    file.set_busy_timeout(_BUSY_MS)
                    version = _int(file.execute("PRAGMA user_version").fetchall()[0][0])
            except apsw.Error as error:
                return [*found, Finding(f"{self._path} cannot be opened: {error}")]
            if version > SCHEMA_VERSION:
                found.append(Finding(self._newer(version)))
        return found

    def _newer(self, version: int) -> str:
        return (
            f"{self._path} was written by a newer Postroom (its schema is {version}, this one knows"
            f" {SCHEMA_VERSION}): install that version again, or start with another file"
        )

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
            self.run(f"PRAGMA {pragma}")
        ((found,),) = self.run("PRAGMA user_version")
        version = _int(found)
        if version > SCHEMA_VERSION:
            raise StoreUnavailable(self._newer(version))
        if version < SCHEMA_VERSION:
            with self._commit():
                for step in _MIGRATIONS[version:]:
                    for statement in step.split(";\n"):
                        self.run(statement)
                if not version:
                    self.run("INSERT INTO meta VALUES ('database', ?)", (secrets.token_hex(8),))
                    self.run("INSERT INTO meta VALUES ('opens', 0), ('generation', 1)")
                self.run(f"PRAGMA user_version={SCHEMA_VERSION}")

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
        meta = {str(name): str(value) for name, value in self.run("SELECT name, value FROM meta")}
        beside = self._neighbour()
        self._mark = mark = Mark(meta["database"], int(meta["opens"]), int(meta["generation"]))
        fresh = not mark.opens and beside == _NO_MARK
        if not fresh and (beside.database != mark.database or beside.opens > mark.opens):
            mark.generation = max(mark.generation, beside.generation) + 1
            _log.warning("the store may have lost its newest messages: a new epoch begins", epoch=mark.generation)
        mark.opens = max(mark.opens, beside.opens)
        self.mark()
        self.epoch = Epoch(mark.generation)

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
            self.run(
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
        """After a failure: open the file anew, for a handle whose sync has failed is not to be trusted.

        Whether the transaction that failed is certainly not in the file.
        """
        witness, self._witness = self._witness, None
        self._suspect = True
        self._disconnect()
        try:
            self._connect()
            return witness is None or not self.run("SELECT 1 FROM entry WHERE log=? AND offset=?", witness)
        except (apsw.Error, OSError, StoreUnavailable) as error:
            self._disconnect()
            _log.error("the store cannot be opened again", reason=str(error))
            return witness is None

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

    @contextlib.contextmanager
    def _commit(self) -> Iterator[None]:
        self._witness = None
        self.run("BEGIN IMMEDIATE")
        try:
            yield
            self._witness = self.newest
            self.run("COMMIT")
            self._witness = None
        except BaseException:
            with contextlib.suppress(apsw.Error):
                self.run("ROLLBACK")
            raise
        finally:
            self.newest = None

    def run(self, statement: str, values: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """All rows of one statement."""
        if self._connection is None:
            raise apsw.CantOpenError("the file is not open")
        return self._connection.execute(statement, tuple(values)).fetchall()

    def rows(self, statement: str, values: tuple[object, ...]) -> Iterator[Any]:
        """The rows of one statement, one after the other."""
        if self._connection is None:
            raise apsw.CantOpenError("the file is not open")
        return self._connection.execute(statement, values)

    def run_for(self, statements: Statements, rows: Sequence[object]) -> list[tuple[object, ...]]:
        """The statement for all of `rows`, whose values follow one another, in as few steps as it takes."""
        at, left = 0, len(rows) // statements.columns
        out: list[tuple[object, ...]] = []
        for chunk, text in statements.texts:
            while left >= chunk:
                out += self.run(text, rows[at : at + chunk * statements.columns])
                at += chunk * statements.columns
                left -= chunk
        return out


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value
