"""The schema in the database: made, brought up to date, and looked at."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any, Final

import asyncpg
import structlog

from postroom.errors import StoreUnavailable
from postroom.findings import Finding, advice
from postroom.postgres_link import NOT_KEPT, Line, PostgresUrl, Trouble, connect, trouble_of
from postroom.postgres_pooling import Pooling, pooling_of

_log = structlog.get_logger("postroom.store")

SCHEMA_VERSION: Final = 1
_OLDEST_SERVER: Final = 140_000
_SECONDS: Final = 60.0
_NO_SUCH_TABLE: Final = "42P01"


def _migration(version: int, schema: str) -> str:
    """The statements that lead to `version` from the one before it."""
    text = files("postroom.store").joinpath("sql", f"{version}.sql").read_text(encoding="utf-8")
    return text.replace("{s}", f'"{schema}"')


async def prepare(url: PostgresUrl) -> None:
    """Make the schema, or bring it up to date, and warn of settings that lose messages.

    Raises Trouble, or StoreUnavailable with a sentence for the operator.
    """
    async with _connected(url) as line:
        await _refuse_pooler(line, url)
        for finding in [*await _refusals(line), *await _advice(line)]:
            if finding.grave:
                raise StoreUnavailable(f"PostgreSQL: {finding.text}")
            _log.warning(finding.text)
        await _migrate(line, url.options.schema)


async def findings(url: PostgresUrl) -> Sequence[Finding]:
    """What is missing at the server, in the database, or in the schema. Raises Trouble. Changes nothing."""
    async with _connected(url) as line:
        await _refuse_pooler(line, url)
        found = [*await _refusals(line), *await _advice(line)]
        if not any(finding.grave for finding in found):
            found += await _rights(line, url.options.schema)
            found += await _room(line, url.options.pool + 3)
        return found


async def _refuse_pooler(line: Line, url: PostgresUrl) -> None:
    if await pooling_of(line, url) is Pooling.TRANSACTIONS:
        raise StoreUnavailable(f"PostgreSQL: {NOT_KEPT}")


@asynccontextmanager
async def _connected(url: PostgresUrl) -> AsyncIterator[Line]:
    line = await connect(url)
    try:
        yield line
    finally:
        line.close()


async def _value(line: Line, statement: str, *arguments: Any) -> Any:
    ((value,),) = await line.ask(statement, arguments, _SECONDS)
    return value


async def _refusals(line: Line) -> Sequence[Finding]:
    version, shown, encoding, standby, unwritable = (
        await line.ask(
            "SELECT current_setting('server_version_num')::int, current_setting('server_version'),"
            " current_setting('server_encoding'), pg_is_in_recovery(), current_setting('transaction_read_only')::bool",
            (),
            _SECONDS,
        )
    )[0]
    found = []
    if version < _OLDEST_SERVER:
        found.append(Finding(f"version {shown} is too old: 14 at least"))
    if encoding != "UTF8":
        found.append(Finding(f"the database's encoding is {encoding}: make one with ENCODING 'UTF8'"))
    if standby:
        found.append(Finding("the server is a standby and takes no writes: name the primary, or all servers"))
    elif unwritable:
        found.append(Finding("this role may only read here: set default_transaction_read_only to off"))
    return found


async def _advice(line: Line) -> Sequence[Finding]:
    fsync, pages, commit = (
        await line.ask(
            "SELECT current_setting('fsync'), current_setting('full_page_writes'),"
            " current_setting('synchronous_commit')",
            (),
            _SECONDS,
        )
    )[0]
    found = []
    if fsync == "off":
        found.append(advice("the server does not wait for its disk: set fsync to on, or a power cut loses messages"))
    if pages == "off":
        found.append(advice("the server cannot mend torn pages: set full_page_writes to on"))
    if commit == "local":
        found.append(advice("synchronous_commit is local: a fail-over may lose messages that were accepted"))
    return found


async def _rights(line: Line, schema: str) -> Sequence[Finding]:
    version = await _version(line, schema)
    if version > SCHEMA_VERSION:
        return [Finding(_newer(version, schema))]
    ((there, may_make, may_fill, may_use),) = await line.ask(
        "SELECT to_regnamespace($1) IS NOT NULL, has_database_privilege(current_database(), 'CREATE'),"
        " coalesce(has_schema_privilege(to_regnamespace($1), 'CREATE, USAGE'), false),"
        " coalesce(has_table_privilege(to_regclass($2), 'SELECT, INSERT, UPDATE, DELETE'), false)",
        (f'"{schema}"', f'"{schema}".log'),
        _SECONDS,
    )
    if not there and not may_make:
        return [Finding(f"this role may not make the schema: CREATE SCHEMA {schema} AUTHORIZATION the_role")]
    if there and version < SCHEMA_VERSION and not may_fill:
        return [Finding(f"this role may not make tables in the schema {schema}: let it own the schema")]
    if version and not may_use:
        return [Finding(f"this role may not use the tables of the schema {schema}: let it own them")]
    return []


async def _room(line: Line, wanted: int) -> Sequence[Finding]:
    ((free, most),) = await line.ask(
        "SELECT m - r - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'), m FROM ("
        " SELECT current_setting('max_connections')::int AS m,"
        " current_setting('superuser_reserved_connections')::int AS r) AS s",
        (),
        _SECONDS,
    )
    if free >= wanted:
        return []
    return [
        advice(f"{free} of max_connections = {most} are free, and a node may use {wanted}: raise it, or lower pool")
    ]


async def _version(line: Line, schema: str) -> int:
    try:
        return int(await _value(line, f'SELECT max(version) FROM "{schema}".schema_version') or 0)
    except Trouble as trouble:
        if trouble.code in (_NO_SUCH_TABLE, "3F000"):
            return 0
        raise


async def _migrate(line: Line, schema: str) -> None:
    version = await _version(line, schema)
    _refuse_newer(version, schema)
    if version == SCHEMA_VERSION:
        return
    # The lock ends with the transaction: it holds behind a PgBouncer too.
    lock = int.from_bytes(hashlib.blake2b(f"postroom {schema}".encode(), digest_size=8).digest(), "big", signed=True)
    connection = line.connection
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", lock)
            if not await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", f'"{schema}"'):
                await connection.execute(f'CREATE SCHEMA "{schema}"')
            await connection.execute(
                f'CREATE TABLE IF NOT EXISTS "{schema}".schema_version ('
                "version int PRIMARY KEY, since timestamptz NOT NULL DEFAULT now())"
            )
            version = await connection.fetchval(f'SELECT coalesce(max(version), 0) FROM "{schema}".schema_version')
            _refuse_newer(version, schema)
            for step in range(version + 1, SCHEMA_VERSION + 1):
                _log.info("the database's schema is brought up to date", schema=schema, version=step)
                await connection.execute(_migration(step, schema))
                await connection.execute(f'INSERT INTO "{schema}".schema_version (version) VALUES ($1)', step)
    except asyncpg.InsufficientPrivilegeError as error:
        raise StoreUnavailable(
            f"PostgreSQL: {error}: let the owner of the database run CREATE SCHEMA {schema} AUTHORIZATION the_role"
        ) from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise trouble_of(error, sent=True) from error


def _refuse_newer(version: int, schema: str) -> None:
    if version > SCHEMA_VERSION:
        raise StoreUnavailable(f"PostgreSQL: {_newer(version, schema)}")


def _newer(version: int, schema: str) -> str:
    return (
        f"the schema {schema} was made by a newer Postroom (its version is {version}, this one knows"
        f" {SCHEMA_VERSION}): install that version again, or name another schema"
    )
