"""The backplane on Kafka: one topic, subjects hashed onto its partitions.

URLs::

    kafka://[user:password@]host[:port][,host[:port]…]      a user means SASL

Options, after `?`: `prefix` (the topic's name, `postroom`), `timeout` (seconds until a server that does not answer is
given up, 5), `partitions` (of a topic that is made, 16), `replication` (of a topic that is made; 3,
or the number of servers if they are fewer),
`tls` (`true`), `ca-file`, `cert-file`, `key-file`, `sasl` (`PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`).

No consumer group: a node reads the partitions that carry what it follows, from their ends, and drops what is not for it
by the key, which is the subject. After a re-connection it goes on where it was, so that it usually misses nothing.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final
from zlib import crc32

import structlog
from msgspec import structs

from postroom.backplane.base import Subject, Traits
from postroom.backplane.kafka_topic import DENIALS, LARGEST, Denied, KafkaOptions, Topic, let_go, whole
from postroom.backplane.recovery import Cut, Recovery, reason_of, translated
from postroom.engine_url import take_apart
from postroom.errors import BackplaneUnavailable, ConfigurationError, MissingExtra
from postroom.findings import Finding

try:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition, errors
except ModuleNotFoundError as error:  # pragma: no cover
    raise MissingExtra("kafka://", "kafka") from error

logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what it would log, it raises too

_log = structlog.get_logger("postroom.backplane")

_PORT: Final = 9092
_LEAST: Final = 16_384
"""Bytes of a payload that any topic is expected to take."""

_LONG_POLL_MS: Final = 100
"""How long the server keeps a question that has no answer yet. What is asked meanwhile waits behind it."""

_ERRORS: Final = (errors.KafkaError, RuntimeError, AssertionError)
"""What the library raises; the latter two of a client that is closed meanwhile."""


class _TooLarge(Cut):
    """The topic takes no records of this size."""


class _Session:
    """A producer, a consumer, and what the consumer reads. `largest`: bytes of a payload that the topic takes."""

    def __init__(self, topic: Topic, positions: dict[Any, int], largest: int) -> None:
        self._topic = topic
        self._positions = positions
        self._assigning = asyncio.Lock()
        self._partitions = 1
        self._consumer: Any = None
        self._producer: Any = None
        self.largest = largest

    @asynccontextmanager
    async def opened(self, *, first: bool) -> AsyncIterator[None]:
        """Connect, for as long as the context lasts; the `first` time, try what this user must be allowed to do.

        Raises Denied, Cut, and what the library raises.
        """
        async with self._topic.reached() as server:
            leaders = await server.partitions()
            if not leaders:
                leaders = await server.make()
                self._positions.clear()
            self._partitions = len(leaders)
            self.largest = await server.largest() or self.largest
            missing = [] if not first or await server.may_read(leaders) else ["Read"]
        self._consumer = AIOKafkaConsumer(
            **self._topic.told,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",  # a position that is gone is an interruption
            fetch_max_wait_ms=_LONG_POLL_MS,
        )
        self._producer = AIOKafkaProducer(
            **self._topic.told,
            enable_idempotence=True,
            linger_ms=0,
            max_batch_size=self.largest,  # what a turn publishes to one partition goes in one request
            max_request_size=1 << 20,
        )
        async with AsyncExitStack() as stack:
            reading, writing = self._consumer._client, self._producer.client
            stack.push_async_callback(let_go, reading, self._consumer.stop, reading.close)
            stack.push_async_callback(let_go, writing, self._abandon, writing.close)
            try:
                for client in (self._consumer, self._producer):
                    await whole(client.start(), 3 * self._topic.seconds)
                _let_sender_die(self._producer)
                await self._consumer._client.set_topics([self._topic.name])  # else it finds that out after a pause
                if first:
                    await self._try_to_write()
            except (Denied, *DENIALS) as error:
                raise self._topic.denied(*missing, "Write") from error
            if missing:
                raise self._topic.denied(*missing)
            yield

    async def _abandon(self) -> None:
        """Stop the producer, and what it still tries to send: its caller was told that it is lost.

        The library's `stop` would wait for that, which may be for ever, and then leave it under way.
        """
        self._producer._closed = True
        await self._producer._sender.close()

    async def _try_to_write(self) -> None:
        try:
            async with asyncio.timeout(self._topic.seconds):
                with self._explained():
                    await self._producer.send_and_wait(self._topic.name, b"", key=b"", partition=0)
        except TimeoutError:
            raise Cut(
                f"the topic {self._topic.name} takes no record: are as many of its replicas in sync as"
                " min.insync.replicas demands?"
            ) from None

    def _place(self, subject: Subject) -> Any:
        # All nodes must agree: Python's hash differs from process to process.
        return TopicPartition(self._topic.name, crc32(subject.encode()) % self._partitions)

    async def begin(self, wanted: Sequence[Subject]) -> None:
        """Follow `wanted` and nothing else: each partition from where it was read to, or from its end."""
        places = {self._place(subject) for subject in wanted}
        for place in self._positions.keys() - places:
            del self._positions[place]
        await self.follow(wanted)

    async def follow(self, subjects: Sequence[Subject]) -> None:
        """Return once what is published from now on will come."""
        async with self._assigning:
            before = self._consumer.assignment()
            new = {self._place(subject) for subject in subjects} - before
            if not new:
                return
            ends = await self._consumer.end_offsets([place for place in new if place not in self._positions])
            self._positions.update(ends)
            self._assign(before | new)

    async def forget(self, wanted: Sequence[Subject]) -> None:
        """Read no more than `wanted` needs."""
        async with self._assigning:
            needed, before = {self._place(subject) for subject in wanted}, self._consumer.assignment()
            if needed and needed < before:
                for place in before - needed:
                    self._positions.pop(place, None)
                self._assign(needed)

    def _assign(self, places: set[Any]) -> None:
        self._consumer.assign(sorted(places))
        for place in places:
            self._consumer.seek(place, self._positions[place])

    async def listen(self, heard: Callable[[bytes, bytes], None]) -> None:
        """Hand over what comes, until the task is cancelled."""
        while True:
            if not self._consumer.assignment():
                await asyncio.sleep(_LONG_POLL_MS / 1000)
                continue
            found = await self._read()
            for place, records in found.items():
                for record in records:
                    # What was on its way while partitions were assigned anew may come twice.
                    if record.offset >= self._positions.get(place, record.offset + 1):
                        self._positions[place] = record.offset + 1
                        heard(record.key or b"", record.value or b"")

    async def _read(self) -> Any:
        try:
            with translated(*_ERRORS):
                try:
                    return await self._consumer.getmany(timeout_ms=1000)
                except DENIALS as error:
                    raise self._topic.denied("Read") from error
        except Cut as cut:
            if isinstance(cut.__cause__, errors.OffsetOutOfRangeError):
                for place in cut.__cause__.args[0]:
                    self._positions.pop(place, None)
                raise Cut("what was to be read next is gone: it has expired, or the topic was made anew") from cut
            raise

    async def publish(self, batch: Sequence[tuple[Subject, bytes]]) -> None:
        """Return once the servers have it."""
        sent = []
        with self._explained():
            for subject, payload in batch:
                place = self._place(subject).partition
                record = await self._producer.send(self._topic.name, payload, key=subject.encode(), partition=place)
                record.add_done_callback(lambda done: done.cancelled() or done.exception())  # one is told, of several
                sent.append(record)
            if sent:
                await asyncio.wait(sent)
            for record in sent:
                record.result()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Say in words what the servers have against a record."""
        try:
            yield
        except DENIALS as error:
            raise self._topic.denied("Write") from error
        except (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError) as error:
            raise _TooLarge(
                f"the topic {self._topic.name} takes no records of this size (max.message.bytes)"
            ) from error
        except errors.InvalidTimestampError as error:
            raise Cut(
                "the servers refuse the time of this node's records: set its clock, or message.timestamp.type of the"
                f" topic {self._topic.name} to LogAppendTime"
            ) from error

    async def ask(self) -> None:
        """Return once a server has answered on each of the connections, and the topic is as it was."""
        count = len(await self._topic.partitions(self._producer.client))
        if count != self._partitions:
            raise Cut(f"the topic {self._topic.name} had {self._partitions} partitions, and has {count} now")
        await self._consumer.end_offsets([TopicPartition(self._topic.name, 0)])


def _let_sender_die(producer: Any) -> None:
    # Where the library's sending task ends with an error, which a cut connection can bring about, it tells that to a
    # future that only transactions have, and so fails once more, in the loop. (aiokafka 0.14)
    waiter = asyncio.get_running_loop().create_future()
    waiter.add_done_callback(lambda done: done.cancelled() or done.exception())
    producer._txn_manager._transaction_waiter = waiter


class KafkaBackplane:
    """`url`: see above."""

    def __init__(self, url: str) -> None:
        self._url = take_apart(url, KafkaOptions, port=_PORT)
        if self._url.path:
            raise ConfigurationError("kafka://…: nothing comes after / in the URL: the topic is the option prefix")
        self._topic = Topic(self._url)
        self.traits = Traits(max_payload_bytes=LARGEST, keeps_order_across_reconnect=True, survives_restart=True)
        self._wanted: dict[bytes, Subject] = {}
        self._positions: dict[Any, int] = {}
        self._session: _Session | None = None
        self._recovery = Recovery(errors.KafkaError)
        self._reason = ""

    async def run(self, received: Callable[[Subject, bytes], None], interrupted: Callable[[], None]) -> None:
        """Receive until cancelled."""

        def heard(key: bytes, payload: bytes) -> None:
            subject = self._wanted.get(key)
            if subject is not None:
                received(subject, payload)

        async def session(established: Callable[[], None]) -> None:
            try:
                await self._live(heard, established)
            except* Denied as group:
                if self._recovery.fresh:  # later an administrator may be at work
                    raise ConfigurationError(f"the backplane refuses this node: {reason_of(group)}") from group
                raise

        await self._recovery.run(session, interrupted)

    async def _live(self, heard: Callable[[bytes, bytes], None], established: Callable[[], None]) -> None:
        """One session, from its connections to their end."""
        one = _Session(self._topic, self._positions, self.traits.max_payload_bytes)
        async with AsyncExitStack() as stack:
            with translated(*_ERRORS):
                # It keeps to `request_timeout_ms` by itself; cancelled here, it would leave connections behind.
                await stack.enter_async_context(one.opened(first=self._recovery.fresh))
                self._take(one.largest)
                async with asyncio.timeout(self._url.options.timeout):
                    await one.begin([*self._wanted.values()])
            try:
                async with asyncio.TaskGroup() as tasks:
                    self._session, self._reason = one, "it was asked for"
                    established()
                    tasks.create_task(one.listen(heard))
                    await self._watch(one)
            finally:
                self._recovery.down()
                self._session = None

    async def _watch(self, session: _Session) -> None:
        seconds = self._url.options.timeout / 2
        while not await self._recovery.until_cut(seconds):
            with translated(*_ERRORS):
                async with asyncio.timeout(seconds):
                    await session.ask()
        raise Cut(self._reason)

    def _take(self, largest: int) -> None:
        """From now on no payload may be larger."""
        self.traits = structs.replace(self.traits, max_payload_bytes=largest)

    async def check(self) -> Sequence[Finding]:
        """See `postroom.findings.Checks`. What this user may do with the topic is tried where the engine runs."""
        try:
            with translated(*_ERRORS):
                async with self._topic.reached() as server:
                    return await server.check()
        except Denied as error:
            return [Finding(str(error))]
        except (Cut, OSError, TimeoutError) as error:
            raise BackplaneUnavailable(reason_of(error)) from error

    async def subscribe(self, subjects: Sequence[Subject]) -> None:
        """Return once these are in force. Raises BackplaneUnavailable."""
        self._wanted.update((subject.encode(), subject) for subject in subjects)
        async with self._used(waits=True) as session:
            await session.follow(subjects)

    async def unsubscribe(self, subjects: Sequence[Subject]) -> None:
        """These are no longer wanted."""
        for subject in subjects:
            self._wanted.pop(subject.encode(), None)
        with contextlib.suppress(BackplaneUnavailable):  # then the next session does not read them
            async with self._used() as session:
                await session.forget([*self._wanted.values()])

    async def publish(self, batch: Sequence[tuple[Subject, bytes]]) -> None:
        """Send each payload to whoever is subscribed; the servers have it on return. Raises BackplaneUnavailable."""
        used = None
        try:
            async with self._used() as used:
                await used.publish(batch)
        except BackplaneUnavailable as error:
            if used is not None and used is self._session:
                self._doubt(error)
            raise

    def _doubt(self, error: BackplaneUnavailable) -> None:
        """Begin anew after a failed publish: the producer may be dead, or have counted what the servers have not."""
        cause = error.__cause__
        if isinstance(cause, _TooLarge):
            self._take(max(_LEAST, self.traits.max_payload_bytes // 2))
            _log.warning("the topic takes smaller records", bytes=self.traits.max_payload_bytes, reason=str(cause))
        if not isinstance(cause, Denied):
            self._reason = str(error)
            self._recovery.cut()

    async def reconnect(self) -> None:
        """Build the connections up again."""
        self._recovery.cut()

    @asynccontextmanager
    async def _used(self, *, waits: bool = False) -> AsyncIterator[_Session]:
        try:
            async with asyncio.timeout(self._url.options.timeout):
                if waits or self._recovery.fresh:
                    await self._recovery.wait_up()
                self._recovery.demand_up()
                if self._session is None:
                    raise Cut("the connection was lost")
                with translated(*_ERRORS):
                    yield self._session
        except (Cut, OSError, TimeoutError) as error:
            raise self._recovery.unavailable(error) from error
