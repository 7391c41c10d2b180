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
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any, Final, Literal
from zlib import crc32

from msgspec import Meta

from postroom.backplane.base import Subject, Traits
from postroom.backplane.recovery import Cut, Recovery, translated
from postroom.engine_url import EngineUrl, Prefix, Seconds, TlsOptions, take_apart, tls_context
from postroom.errors import BackplaneUnavailable, ConfigurationError, MissingExtra

try:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic
    from aiokafka.errors import KafkaError, TopicAlreadyExistsError
except ModuleNotFoundError as error:  # pragma: no cover
    raise MissingExtra("kafka://", "kafka") from error

logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what it would log, it raises too

_PORT: Final = 9092
_RETENTION_MS: Final = 600_000
_LARGEST: Final = 1_000_000
"""Under the server's `message.max.bytes` (1,048,588), with room for a subject and the record around both."""

_LONG_POLL_MS: Final = 100
"""How long the server keeps a question that has no answer yet. What is asked meanwhile waits behind it."""

_CLOSE_SECONDS: Final = 2.0

_ERRORS: Final = (KafkaError, RuntimeError, AssertionError)
"""What the library raises; the latter two of a client that is closed meanwhile."""


class KafkaOptions(TlsOptions, frozen=True):
    """What may follow the `?` of the URL."""

    prefix: Prefix = "postroom"
    timeout: Seconds = 5.0
    partitions: Annotated[int, Meta(ge=1, le=1024)] = 16
    replication: Annotated[int, Meta(ge=1, le=32)] | None = None
    tls: bool = False
    sasl: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"


class _Session:
    """A producer, a consumer, and what the consumer reads."""

    def __init__(self, url: EngineUrl[KafkaOptions], common: Mapping[str, Any], positions: dict[Any, int]) -> None:
        self._url, self._common = url, common
        self._topic = url.options.prefix
        self._positions = positions
        self._assigning = asyncio.Lock()
        self._partitions = 1
        self._consumer = AIOKafkaConsumer(
            **common,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="latest",
            fetch_max_wait_ms=_LONG_POLL_MS,
        )
        self._producer = AIOKafkaProducer(**common, enable_idempotence=True, linger_ms=0, max_request_size=1 << 20)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Connect, for as long as the context lasts. Raises what the library raises, and Cut."""
        async with AsyncExitStack() as stack:
            clients = (self._consumer, self._producer)
            for client in clients:
                stack.push_async_callback(_stop, client)
            for client in clients:
                await _whole(client.start())
            _let_sender_die(self._producer)
            self._partitions = await self._topic_size()
            yield

    async def _topic_size(self) -> int:
        there = await self._consumer.topics()
        if self._topic not in there:
            await self._make_topic()
        known = await self._producer.partitions_for(self._topic)
        if not known:
            raise Cut(f"the topic {self._topic} has no partitions")
        return len(known)

    async def _make_topic(self) -> None:
        options = self._url.options
        admin = AIOKafkaAdminClient(**self._common)
        topic = NewTopic(
            self._topic,
            options.partitions,
            options.replication or min(3, len(self._producer.client.cluster.brokers())),
            topic_configs={"retention.ms": str(_RETENTION_MS), "cleanup.policy": "delete"},
        )
        try:
            await admin.start()
            answer = await admin.create_topics([topic])
            for each in answer.topic_errors:
                code, said = each[1], each[2] if len(each) > 2 else ""
                if code not in (0, TopicAlreadyExistsError.errno):
                    raise Cut(
                        f"there is no topic {self._topic}, and it cannot be made ({said or code}): make it with"
                        f" {options.partitions} partitions and retention.ms={_RETENTION_MS}"
                    )
        finally:
            await admin.close()

    def _place(self, subject: Subject) -> Any:
        # All nodes must agree: Python's hash differs from process to process.
        return TopicPartition(self._topic, crc32(subject.encode()) % self._partitions)

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
            with translated(*_ERRORS):
                found = await self._consumer.getmany(timeout_ms=1000)
            for place, records in found.items():
                for record in records:
                    # What was on its way while partitions were assigned anew may come twice.
                    if record.offset >= self._positions.get(place, record.offset + 1):
                        self._positions[place] = record.offset + 1
                        heard(record.key or b"", record.value or b"")

    async def publish(self, batch: Sequence[tuple[Subject, bytes]]) -> None:
        """Return once the servers have it."""
        sent = []
        for subject, payload in batch:
            place = self._place(subject)
            sent.append(
                await self._producer.send(self._topic, payload, key=subject.encode(), partition=place.partition)
            )
        for each in sent:
            await asyncio.shield(each)

    async def ask(self) -> None:
        """Return once a server has answered on each of the connections."""
        await self._consumer.end_offsets([TopicPartition(self._topic, 0)])
        await self._producer.client.fetch_all_metadata()


async def _whole(work: Coroutine[Any, Any, None]) -> None:
    """Do it to its end, also where we are cancelled: the library leaves connections behind if it is."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


def _let_sender_die(producer: Any) -> None:
    # Where the library's sending task ends with an error, which a cut connection can bring about, it tells that to a
    # future that only transactions have, and so fails once more, in the loop. (aiokafka 0.14)
    waiter = asyncio.get_running_loop().create_future()
    waiter.add_done_callback(lambda done: done.cancelled() or done.exception())
    producer._txn_manager._transaction_waiter = waiter


async def _stop(client: Any) -> None:
    # A producer first sends what waits, which may be never. `_client` of a consumer, `client` of a producer.
    connections = getattr(client, "client", None) or client._client
    for end in (client.stop, connections.close):
        with contextlib.suppress(Cut, TimeoutError), translated(Exception):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await end()


class KafkaBackplane:
    """`url`: see above."""

    traits = Traits(max_payload_bytes=_LARGEST, keeps_order_across_reconnect=True, survives_restart=True)

    def __init__(self, url: str) -> None:
        self._url = take_apart(url, KafkaOptions, port=_PORT)
        if self._url.path:
            raise ConfigurationError("kafka://…: nothing comes after / in the URL: the topic is the option prefix")
        self._common = _settings(self._url)
        self._wanted: dict[bytes, Subject] = {}
        self._positions: dict[Any, int] = {}
        self._session: _Session | None = None
        self._recovery = Recovery(KafkaError)

    async def run(self, received: Callable[[Subject, bytes], None], interrupted: Callable[[], None]) -> None:
        """Receive until cancelled."""

        def heard(key: bytes, payload: bytes) -> None:
            subject = self._wanted.get(key)
            if subject is not None:
                received(subject, payload)

        async def session(established: Callable[[], None]) -> None:
            options = self._url.options
            one = _Session(self._url, self._common, self._positions)
            async with AsyncExitStack() as stack:
                with translated(*_ERRORS):
                    # It keeps to `request_timeout_ms` by itself; cancelled here, it would leave connections behind.
                    await stack.enter_async_context(one.opened())
                    async with asyncio.timeout(options.timeout):
                        await one.follow([*self._wanted.values()])
                try:
                    async with asyncio.TaskGroup() as tasks:
                        self._session = one
                        established()
                        tasks.create_task(one.listen(heard))
                        await self._watch(one)
                finally:
                    self._recovery.down()
                    self._session = None

        await self._recovery.run(session, interrupted)

    async def _watch(self, session: _Session) -> None:
        seconds = self._url.options.timeout / 2
        while not await self._recovery.until_cut(seconds):
            with translated(*_ERRORS):
                async with asyncio.timeout(seconds):
                    await session.ask()
        raise Cut("it was asked for")

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
        try:
            async with self._used() as session:
                await session.publish(batch)
        except BackplaneUnavailable:
            self._recovery.cut()  # the producer may be dead
            raise

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


def _settings(url: EngineUrl[KafkaOptions]) -> Mapping[str, Any]:
    """What all of the library's clients are told."""
    options = url.options
    milliseconds = int(1000 * options.timeout)
    common: dict[str, Any] = {
        "bootstrap_servers": [f"{f'[{host}]' if ':' in host else host}:{port}" for host, port in url.hosts],
        "client_id": "postroom",
        "request_timeout_ms": milliseconds,
        "retry_backoff_ms": 50,
        "security_protocol": ("SASL_" if url.username else "") + ("SSL" if options.tls else "PLAINTEXT"),
    }
    if options.tls:
        common["ssl_context"] = tls_context(url.scheme, options)
    elif options.ca_file or options.cert_file:
        raise ConfigurationError("kafka://…: files of certificates need tls=true")
    if url.username:
        if url.password is None:
            raise ConfigurationError("kafka://…: a user needs a password")
        common |= {
            "sasl_mechanism": options.sasl,
            "sasl_plain_username": url.username,
            "sasl_plain_password": url.password,
        }
    return common
