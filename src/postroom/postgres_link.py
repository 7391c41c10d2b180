"""What store and backplane need of PostgreSQL alike: the URL, connections, and the driver's errors.

URLs::

    postgresql://[user[:password]@]host[:port][,host[:port]...]/database     postgres:// is the same

Options, after `?`: `schema` (that holds all of Postroom's, `postroom`), `pool` (connections of a store, 8), `timeout`
(seconds that a call may take, 5), `connect-timeout` (seconds, 3), and what libpq knows: `sslmode`, `sslrootcert`,
`sslcert`, `sslkey`, `sslcrl`, `passfile`, `target_session_attrs`.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import urlencode

from msgspec import Meta, Struct

from postroom.engine_url import options_of
from postroom.errors import ConfigurationError, MissingExtra

try:
    import asyncpg
except ModuleNotFoundError as error:  # pragma: no cover
    raise MissingExtra("postgresql://", "postgres") from error

T = TypeVar("T")

_Seconds = Annotated[float, Meta(gt=0, le=3600)]

_LIBPQ: Final = frozenset(
    ("sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "passfile", "target_session_attrs", "sslnegotiation")
)


class PostgresOptions(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """What may follow the `?` of the URL, beside what libpq knows."""

    schema: Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")] = "postroom"
    pool: Annotated[int, Meta(ge=2, le=1000)] = 8
    timeout: _Seconds = 5.0
    connect_timeout: _Seconds = 3.0


class PostgresUrl(Struct, frozen=True):
    """A URL taken apart: what the driver is given, and what is ours."""

    dsn: str
    options: PostgresOptions


def parse_url(url: str) -> PostgresUrl:
    """Take `url` apart. Raises ConfigurationError; what it says holds no password."""
    scheme, separator, rest = url.partition("://")
    if scheme not in ("postgresql", "postgres") or not separator:
        raise ConfigurationError(f"{scheme}: write postgresql://user:password@host/database")
    address, _, query = rest.partition("?")
    options, theirs = options_of(scheme, query, PostgresOptions, beside=_LIBPQ)
    if "target_session_attrs" not in theirs and "," in address:
        theirs["target_session_attrs"] = "read-write"  # of several servers the primary
    dsn = f"postgresql://{address}" + (f"?{urlencode(theirs)}" if theirs else "")
    return PostgresUrl(dsn, options)


class Trouble(Exception):
    """A call failed. `sent`: it may have been done. `passing`: it is worth while to try once more.

    `code` is the server's SQLSTATE, or empty.
    """

    def __init__(self, reason: str, *, sent: bool, passing: bool, code: str = "") -> None:
        super().__init__(reason)
        self.sent = sent
        self.passing = passing
        self.code = code


_PASSING_CLASSES: Final = ("08", "40", "53", "57")
"""Connection trouble, rolled back, out of resources, operator's intervention (shutdown, recovery)."""
_PASSING_CODES: Final = ("25006", "55000", "55P03", "58000", "58030")
"""A standby (until the fail-over is over), not in the right state, lock not available, system errors."""
_FINAL_CODES: Final = ("57014",)


FORGOTTEN: Final = ("26000", "42P05")
"""A prepared statement is not there, or somebody else's: this connection does not keep its session."""

NOT_KEPT: Final = (
    "a pooler before the server pools transactions, and does not keep prepared statements: let it pool sessions, let it"
    " keep them (PgBouncer from 1.21 on: max_prepared_statements = 200), or name the server itself"
)


def trouble_of(error: BaseException, *, sent: bool) -> Trouble:
    """The driver's error, or the network's, as one of ours."""
    reason = str(error).partition("\n")[0] or type(error).__name__
    if isinstance(error, asyncpg.PostgresError):
        code = error.sqlstate or ""
        if isinstance(error, asyncpg.PostgresConnectionError) or code[:2] == "08":
            return Trouble(reason, sent=sent, passing=True, code=code)
        if code in FORGOTTEN:
            return Trouble(NOT_KEPT, sent=False, passing=False, code=code)
        passing = (code[:2] in _PASSING_CLASSES or code in _PASSING_CODES) and code not in _FINAL_CODES
        # An error that the server reports has rolled the transaction back; one that ends the session may not have.
        return Trouble(reason, sent=sent and code[:2] in ("57", "58", "XX"), passing=passing, code=code)
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return Trouble("no server of the URL takes writes", sent=False, passing=True)
    passing = not isinstance(error, ValueError)  # what cannot be encoded, or a URL that the driver refuses
    return Trouble(reason, sent=sent, passing=passing)


class Line:
    """One connection, and whether it may be used again."""

    def __init__(self, connection: "asyncpg.Connection[Any]") -> None:
        self.connection = connection

    async def ask(self, statement: str, arguments: tuple[Any, ...], seconds: float) -> list[Any]:
        """The rows of one statement. Raises Trouble; the connection is closed then, unless the server said no.

        A call that takes longer is left to the server and its connection cut: a request to cancel it could end a
        commit's waiting for its replica, and what no replica has would then count as stored.
        """
        return await self._in_time(self.connection.fetch(statement, *arguments), seconds)

    async def do(self, statements: str, seconds: float) -> None:
        """Have the server do what has no rows and no arguments, several at once. Raises Trouble, as `ask` does."""
        await self._in_time(self.connection.execute(statements), seconds)

    async def _in_time(self, call: Coroutine[Any, Any, T], seconds: float) -> T:
        loop = asyncio.get_running_loop()
        end = loop.call_later(seconds, self.close)
        try:
            return await call
        except asyncpg.PostgresError as error:
            raise trouble_of(error, sent=True) from error
        except Exception as error:
            # Of a connection that is closed between two steps of a call the library speaks in errors of any kind.
            late, closed = loop.time() >= end.when(), not self.open
            self.close()
            if late:
                raise Trouble("the server does not answer in time", sent=True, passing=True) from error
            if closed:
                raise Trouble(f"the connection was closed: {error}", sent=True, passing=True) from error
            raise trouble_of(error, sent=True) from error
        except BaseException:
            self.close()
            raise
        finally:
            end.cancel()

    def close(self) -> None:
        """Cut it."""
        self.connection.terminate()

    @property
    def process(self) -> int:
        """The server's process that serves it, by what the other end told; a pooler tells a number of its own."""
        return int(self.connection.get_server_pid())

    @property
    def open(self) -> bool:
        """Whether it is of use."""
        return not self.connection.is_closed()


async def connect(
    url: PostgresUrl,
    seconds: float | None = None,
    *,
    kind: type["asyncpg.Connection[Any]"] = asyncpg.Connection,
    settings: Mapping[str, str] | None = None,
) -> Line:
    """A new connection of this `kind`, with `settings` of the session. Raises Trouble."""
    limit = url.options.connect_timeout if seconds is None else min(seconds, url.options.connect_timeout)
    try:
        async with asyncio.timeout(limit):
            connection = await asyncpg.connect(url.dsn, timeout=limit, connection_class=kind)
            try:
                # A pooler refuses settings that it does not know where the connection begins.
                for name, value in (settings or {}).items():
                    await connection.execute(f"SET {name} TO {value}")
            except BaseException:
                connection.terminate()
                raise
    except TimeoutError as error:
        raise Trouble("the server does not take the connection in time", sent=False, passing=True) from error
    except Exception as error:
        raise trouble_of(error, sent=False) from error
    return Line(connection)


class Lines:
    """Up to `most` connections to the server, opened when they are needed and kept."""

    def __init__(self, url: PostgresUrl, most: int, *, settings: Mapping[str, str] | None = None) -> None:
        self._url = url
        self._settings = settings
        self._idle: deque[Line] = deque()
        self._free = asyncio.Semaphore(most)

    async def ask(self, statement: str, arguments: tuple[Any, ...], seconds: float) -> list[Any]:
        """The rows of one statement, in `seconds` at most. Raises Trouble."""
        end = asyncio.get_running_loop().time() + seconds
        async with self._line(end) as line:
            return await line.ask(statement, arguments, max(end - asyncio.get_running_loop().time(), 0.001))

    @contextlib.asynccontextmanager
    async def _line(self, end: float) -> AsyncIterator[Line]:
        try:
            async with asyncio.timeout_at(end):
                await self._free.acquire()
        except TimeoutError as error:
            raise Trouble("the calls before this one take too long", sent=False, passing=True) from error
        try:
            line = None
            while self._idle and (line is None or not line.open):
                line = self._idle.pop()
            if line is None or not line.open:
                left = max(end - asyncio.get_running_loop().time(), 0.001)
                line = await connect(self._url, left, settings=self._settings)
            try:
                yield line
            finally:
                if line.open:
                    self._idle.append(line)
        finally:
            self._free.release()

    def close(self) -> None:
        """Cut all that are idle."""
        while self._idle:
            self._idle.pop().close()
