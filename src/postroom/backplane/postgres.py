"""The backplane on PostgreSQL: LISTEN and NOTIFY, for a few nodes that run nothing else.

The URL is that of the store, see `postgres_link`.

Every NOTIFY of a database waits for one lock as it commits, and every listening server process reads all that is
sent: it carries some thousands of payloads a second, not more, and a PgBouncer must be in session mode. A payload of
NOTIFY is text of less than 8,000 bytes: ours travels in base64, a large one in parts, which one transaction keeps
together. The server folds equals within a transaction; each part is numbered, so that none are equal.

Two connections a node: one listens, the other publishes.
"""

import asyncio
import binascii
import contextlib
import hashlib
import itertools
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final
from uuid import uuid4

from postroom.backplane.base import Subject, Traits
from postroom.backplane.recovery import Cut, Recovery
from postroom.errors import BackplaneUnavailable, ConfigurationError, MissingExtra
from postroom.postgres_link import Line, Lines, Trouble, connect, parse_url
from postroom.postgres_pooling import Pooling, pooling_of

try:
    import asyncpg
except ModuleNotFoundError as error:  # pragma: no cover
    raise MissingExtra("postgresql://", "postgres") from error

_PART_BYTES: Final = 5_880
"""Of a payload in one NOTIFY: 7,840 characters of base64, and room for the part's number."""

_MAX_PAYLOAD: Final = 256 * 1024

_PUBLISH: Final = "SELECT pg_notify(c, p) FROM unnest($1::text[], $2::text[]) AS x(c, p)"


class _Connection(asyncpg.Connection):
    """One that listens. What the library would look up for each channel, `heard` does for all."""

    heard: Callable[[str, str], None]

    def _process_notification(self, pid: int, channel: str, payload: str) -> None:
        self.heard(channel, payload)


class _Ear:
    """The listening connection, and which channels are to be in force on it."""

    def __init__(self, line: Line, seconds: float) -> None:
        self._line = line
        self._seconds = seconds
        self._using = asyncio.Lock()
        self._changes: list[str] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._wake = asyncio.Event()

    def change(self, statements: Iterable[str]) -> "asyncio.Future[None]":
        """Done once these are in force."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changes += statements
        self._waiting.append(done)
        self._wake.set()
        return done

    async def run(self) -> None:
        """Make the changes that are asked for, those that came together in one go. Raises Cut."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                changes, self._changes = self._changes, []
                waiting, now = len(self._waiting), self._waiting
                await self.say("; ".join(changes))
                for done in now[:waiting]:
                    if not done.done():
                        done.set_result(None)
                del self._waiting[:waiting]
        finally:
            for done in self._waiting:
                if not done.done():
                    done.set_exception(Cut("the connection was lost"))
                    done.exception()  # whoever waited may have given up

    async def say(self, statements: str) -> None:
        """Have the server do this. Raises Cut."""
        async with self._using:
            try:
                await self._line.do(statements, self._seconds + len(statements) / 1_000_000)
            except Trouble as trouble:
                raise Cut(str(trouble)) from trouble

    def close(self) -> None:
        """Cut it."""
        self._line.close()


class PostgresBackplane:
    """`url`: that of the store will do."""

    traits = Traits(max_payload_bytes=_MAX_PAYLOAD, keeps_order_across_reconnect=True, survives_restart=False)

    def __init__(self, url: str) -> None:
        self._url = parse_url(url)
        # Nothing that is published needs to outlive a crash: no commit waits for the disk.
        self._voice = Lines(self._url, 1, settings={"synchronous_commit": "off"})
        self._wanted: dict[str, Subject] = {}
        self._parts: dict[str, tuple[str, list[str]]] = {}
        self._ear: _Ear | None = None
        self._recovery = Recovery(Trouble, BackplaneUnavailable)
        self._name = uuid4().hex[:16]
        self._numbers = itertools.count(1)
        self._broken: BaseException | None = None

    async def run(self, received: Callable[[Subject, bytes], None], interrupted: Callable[[], None]) -> None:
        """Receive until cancelled."""

        def heard(channel: str, part: str) -> None:
            subject, payload = self._wanted.get(channel), self._joined(channel, part)
            if subject is not None and payload is not None and (self._recovery.up or self._recovery.fresh):
                try:
                    received(subject, payload)
                except BaseException as error:  # the library would log it, and go on
                    self._broken = error
                    self._recovery.cut()

        async def session(established: Callable[[], None]) -> None:
            seconds = self._url.options.timeout
            line = await connect(self._url, kind=_Connection)
            if self._recovery.fresh:
                await self._refuse_pooler(line)
            ear = self._ear = _Ear(line, seconds)
            try:
                line.connection.heard = heard  # type: ignore[attr-defined]
                line.connection.add_termination_listener(lambda _: self._recovery.cut())
                self._parts.clear()
                if self._wanted:
                    await ear.say("; ".join(f'LISTEN "{channel}"' for channel in self._wanted))
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(ear.run())
                    established()
                    await self._watch(ear, seconds / 2)
            finally:
                self._ear = None
                ear.close()
                # Its connection may be as dead as this one.
                self._voice.close()

        try:
            await self._recovery.run(session, interrupted)
        finally:
            self._voice.close()

    async def _refuse_pooler(self, line: Line) -> None:
        try:
            pooling = await pooling_of(line, self._url)
        except BaseException:
            line.close()
            raise
        if pooling in (Pooling.STATEMENTS, Pooling.TRANSACTIONS):
            line.close()
            raise ConfigurationError(
                "postgresql://…: LISTEN needs a session, and a pooler before the server pools transactions: let it pool"
                " sessions, or give the backplane the server's own address (backplane = …)"
            )

    async def _watch(self, ear: _Ear, seconds: float) -> None:
        while not await self._recovery.until_cut(seconds):
            await ear.say("SELECT 1")
        if self._broken is not None:
            raise self._broken
        raise Cut("the connection was closed, or it was asked for")

    def _joined(self, channel: str, part: str) -> bytes | None:
        number, _, count, text = part.split(" ", 3)
        before, texts = self._parts.pop(channel, ("", []))
        if before != number:
            texts = []
        texts.append(text)
        if len(texts) < int(count):
            self._parts[channel] = number, texts
            return None
        return b"".join(map(binascii.a2b_base64, texts))

    async def subscribe(self, subjects: Sequence[Subject]) -> None:
        """Return once these are in force. Raises BackplaneUnavailable."""
        channels = [self._channel(subject) for subject in subjects]
        self._wanted.update(zip(channels, subjects, strict=True))
        await self._change([f'LISTEN "{channel}"' for channel in channels], waits=True)

    async def unsubscribe(self, subjects: Sequence[Subject]) -> None:
        """These are no longer wanted."""
        gone = [c for subject in subjects if self._wanted.pop(c := self._channel(subject), None) is not None]
        with contextlib.suppress(BackplaneUnavailable):  # then they are gone with the connection
            await self._change([f'UNLISTEN "{channel}"' for channel in gone])

    async def _change(self, statements: Sequence[str], *, waits: bool = False) -> None:
        async def change() -> None:
            if (ear := self._ear) is None:
                raise Cut("the connection was lost")
            if statements:
                await ear.change(statements)

        await self._do(change, waits=waits)

    async def publish(self, batch: Sequence[tuple[Subject, bytes]]) -> None:
        """Send each payload to whoever is subscribed; the server has it on return. Raises BackplaneUnavailable."""
        channels: list[str] = []
        parts: list[str] = []
        for subject, payload in batch:
            channel, number = self._channel(subject), f"{self._name}{next(self._numbers):x}"
            starts = range(0, max(1, len(payload)), _PART_BYTES)
            for start in starts:
                text = binascii.b2a_base64(payload[start : start + _PART_BYTES], newline=False).decode()
                channels.append(channel)
                parts.append(f"{number} {start} {len(starts)} {text}")
        await self._do(lambda: self._voice.ask(_PUBLISH, (channels, parts), self._url.options.timeout))

    async def reconnect(self) -> None:
        """Build the connections up again."""
        self._recovery.cut()

    async def _do(self, what: Callable[[], Awaitable[Any]], *, waits: bool = False) -> None:
        try:
            async with asyncio.timeout(self._url.options.timeout):
                if waits or self._recovery.fresh:
                    await self._recovery.wait_up()
                self._recovery.demand_up()
                await what()
        except (Cut, OSError, TimeoutError, Trouble) as error:
            raise self._recovery.unavailable(error) from error

    def _channel(self, subject: Subject) -> str:
        # A channel's name has at most 63 bytes.
        return "pr_" + hashlib.blake2b(f"{self._url.options.schema} {subject}".encode(), digest_size=20).hexdigest()
