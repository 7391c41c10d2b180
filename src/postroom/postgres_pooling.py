"""What stands between a node and PostgreSQL: nothing, or a pooler (PgBouncer and its like), which may take the server's
session away from a connection after each transaction.

Then what belongs to a session is not there any more: LISTEN, and prepared statements unless the pooler keeps them
(PgBouncer from 1.21 on, with `max_prepared_statements`). The driver sends all that has arguments as one, in two steps:
without a name it would be another client's by the second.
"""

import enum
from typing import Final

from postroom.postgres_link import FORGOTTEN, Line, PostgresUrl, Trouble, connect

_SECONDS: Final = 10.0
_TRIES: Final = 3
_WHO: Final = "SELECT pg_backend_pid()"


class Pooling(enum.Enum):
    """What a connection has of the server."""

    NONE = "the server itself"
    SESSIONS = "one session of the server, for as long as it lives"
    STATEMENTS = "a session for each transaction; the pooler keeps its prepared statements"
    TRANSACTIONS = "a session for each transaction"


async def pooling_of(line: Line, url: PostgresUrl) -> Pooling:
    """What `line` has of the server. Raises Trouble.

    A pooler tells of a process that the server does not have. Whether it pools transactions shows where a second
    connection, which stays in one, takes the first one's process.
    """
    try:
        if await _process(line) == line.process:
            return Pooling.NONE
        second = await connect(url)
        try:
            for _ in range(_TRIES):
                if (kind := await _tried(line, second)) is not Pooling.SESSIONS:
                    return kind
        finally:
            second.close()
    except Trouble as trouble:
        if trouble.code in FORGOTTEN:
            return Pooling.TRANSACTIONS
        raise
    return Pooling.SESSIONS


async def _tried(first: Line, second: Line) -> Pooling:
    """SESSIONS also where another client was quicker, and nothing was found out."""
    before = await _process(first)
    await second.do("BEGIN", _SECONDS)
    try:
        taken = await _process(second) == before
        # If it was taken, this prepared statement has to be there on another process of the server.
        moved = await _process(first) != before
    finally:
        await second.do("ROLLBACK", _SECONDS)
    return Pooling.STATEMENTS if taken or moved else Pooling.SESSIONS


async def _process(line: Line) -> int:
    ((number,),) = await line.ask(_WHO, (), _SECONDS)
    return int(number)
