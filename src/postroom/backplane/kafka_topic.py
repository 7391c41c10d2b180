"""The topic of the Kafka engine as its operator sees it: whom it lets in, how it is made, what its settings allow."""

import asyncio
import contextlib
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final, Literal

from msgspec import Meta

from postroom.backplane.recovery import Cut, reason_of, translated
from postroom.engine_url import EngineUrl, Prefix, Seconds, TlsOptions, tls_context
from postroom.errors import ConfigurationError, MissingExtra
from postroom.findings import Finding, advice

try:
    from aiokafka import errors
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
    from aiokafka.conn import create_conn
    from aiokafka.protocol.fetch import FetchRequest
    from aiokafka.protocol.metadata import MetadataRequest
except ModuleNotFoundError as error:  # pragma: no cover
    raise MissingExtra("kafka://", "kafka") from error

LARGEST: Final = 1_000_000
"""Bytes of a payload: under the server's usual `max.message.bytes` (1,048,588)."""

_ROOM: Final = 8_192
"""Of `max.message.bytes`, for a subject and the record around it and a payload."""

_SETTINGS: Final = {
    "retention.ms": "600000",
    "cleanup.policy": "delete",
    # A segment is deleted as a whole; the usual gigabyte would be kept for each partition.
    "segment.bytes": str(64 << 20),
    # The server's clock: it refuses what is stamped more than an hour ahead, and expires what is stamped in the past.
    "message.timestamp.type": "LogAppendTime",
}
"""Of a topic that is made."""

_LONGEST_RETENTION_MS: Final = 86_400_000
_CLOSE_SECONDS: Final = 2.0
_TURN_SECONDS: Final = 0.05

DENIALS: Final = (errors.TopicAuthorizationFailedError, errors.ClusterAuthorizationFailedError)
_REFUSALS: Final = (
    *DENIALS,
    errors.SaslAuthenticationFailed,
    errors.UnsupportedSaslMechanismError,
    errors.IllegalSaslStateError,
    ssl.SSLCertVerificationError,
)


class Denied(Cut):
    """The servers do not let this node in, or do what it must; they, or its settings, have to be changed."""


class KafkaOptions(TlsOptions, frozen=True):
    """What may follow the `?` of the URL."""

    prefix: Prefix = "postroom"
    timeout: Seconds = 5.0
    partitions: Annotated[int, Meta(ge=1, le=1024)] = 16
    replication: Annotated[int, Meta(ge=1, le=32)] | None = None
    tls: bool = False
    sasl: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"


class Topic:
    """The topic that `url` names.

    `told` is what all of the library's clients are told, `seconds` how long a server may take to answer.
    """

    def __init__(self, url: EngineUrl[KafkaOptions]) -> None:
        self._url = url
        self.name = url.options.prefix
        self.seconds = url.options.timeout
        self.told = _told(url)

    @asynccontextmanager
    async def reached(self) -> AsyncIterator["Administration"]:
        """Connect, for as long as the context lasts. Raises Denied, Cut, and what the library raises."""
        client = AIOKafkaAdminClient(**self.told)
        try:
            try:
                await whole(client.start(), self.seconds * (len(self._url.hosts) + 1))
            except errors.KafkaConnectionError:
                await self._say_why_not()
                raise
            yield Administration(self, client, self._url.options)
        finally:
            await let_go(client._client, client.close)

    async def _say_why_not(self) -> None:
        """Raise why no server lets us in, which the library's clients keep to themselves."""
        own = {
            name: value for name, value in self.told.items() if name not in ("bootstrap_servers", "retry_backoff_ms")
        }
        failures: list[tuple[str, Exception]] = []
        for host, port in self._url.hosts:
            try:
                connection = await create_conn(host, port, **own)
                try:
                    await connection.send(MetadataRequest([]))
                finally:
                    connection.close()
            except (errors.KafkaError, OSError, TimeoutError) as error:
                failures.append((f"{host}:{port}", error))
        for place, failure in failures:
            if isinstance(failure, _REFUSALS):
                raise Denied(f"{place}: {reason_of(failure)}") from failure
        for place, failure in failures:
            if isinstance(failure, errors.KafkaConnectionError | ConnectionResetError | ssl.SSLError):
                tls, user = self._url.options.tls, self._url.username is not None
                hint = f"it may want {'no TLS' if tls else 'TLS (tls=true)'}{'' if user else ', or a user'}"
                raise Cut(f"{place} ends the connection: {hint}") from failure
            raise Cut(f"{place}: {reason_of(failure)}") from failure

    def denied(self, *operations: str) -> Denied:
        """What to raise where the servers do not allow `operations`; says how to allow them."""
        unnamed = (
            ("the name in the certificate", "CN=…")
            if self._url.options.cert_file
            else ("who comes without a name", "ANONYMOUS")
        )
        who, principal = (self._url.username,) * 2 if self._url.username else unnamed
        *others, last = [operation.lower() for operation in operations]
        verbs = f"{', '.join(others)} and {last}" if others else last
        options = " ".join(f"--operation {operation}" for operation in operations)
        return Denied(
            f"{who} may not {verbs} the topic {self.name}:"
            f" kafka-acls.sh --add --allow-principal 'User:{principal}' {options} --topic {self.name}"
        )

    async def partitions(self, client: Any) -> Mapping[int, int]:
        """The leader of each of its partitions, asked of any server; none, if there is no such topic.

        By a request of our own: the library's would ask for all topics of the servers, or make this one as they like.
        """
        servers = [broker.nodeId for broker in client.cluster.brokers()]
        failure: Exception = errors.NodeNotReadyError("no server is known")
        tries = 2 * random.sample(servers, len(servers))  # a connection may have ended unnoticed: the next is new
        for server in tries:
            try:
                answer = await client.send(server, MetadataRequest([self.name], allow_auto_topic_creation=False))
            except errors.KafkaError as error:
                failure = error
                continue
            (topic,) = answer.topics
            if topic[0] in [each.errno for each in DENIALS]:
                raise self.denied("Describe", "Read", "Write")
            return {number: leader for _, number, leader, *_ in topic[-1]}
        raise failure


class Administration:
    """A connection to see to the topic."""

    def __init__(self, topic: Topic, client: Any, options: KafkaOptions) -> None:
        self._topic = topic
        self._client = client
        self._options = options

    async def partitions(self) -> Mapping[int, int]:
        """See `Topic.partitions`."""
        return await self._topic.partitions(self._client._client)

    async def make(self) -> Mapping[int, int]:
        """Make the topic, if nobody has by now, and return its partitions. Raises Denied, Cut."""
        await self._make(only_try=False)
        async with asyncio.timeout(self._options.timeout):
            while not (there := await self.partitions()):
                await asyncio.sleep(_TURN_SECONDS)
        return there

    async def _make(self, *, only_try: bool) -> None:
        options, servers = self._options, len(self._client._client.cluster.brokers())
        replication = options.replication or min(3, servers)
        topic = NewTopic(self._topic.name, options.partitions, replication, topic_configs=_SETTINGS)
        answer = await self._client.create_topics([topic], validate_only=only_try)
        for _, code, *more in answer.topic_errors:
            if code in [each.errno for each in DENIALS]:
                raise self._topic.denied("Create")
            if code not in (0, errors.TopicAlreadyExistsError.errno):
                said = more[0] if more and more[0] else errors.for_code(code).__name__
                settings = ", ".join(f"{name}={value}" for name, value in _SETTINGS.items())
                raise Cut(
                    f"there is no topic {self._topic.name}, and it cannot be made ({said}): make it with"
                    f" {options.partitions} partitions and {settings}"
                )

    async def settings(self) -> Mapping[str, str]:
        """The topic's settings; none, where this user may not describe them."""
        (answer,) = await self._client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, self._topic.name)])
        return {name: value or "" for _, _, _, _, entries in answer.resources for name, value, *_ in entries}

    async def largest(self) -> int | None:
        """Bytes of the largest payload that the topic takes; None where this user may not know."""
        limit = (await self.settings()).get("max.message.bytes")
        return None if limit is None else max(1, min(LARGEST, int(limit) - _ROOM))

    async def may_read(self, leaders: Mapping[int, int]) -> bool:
        """Whether this user may; a server that cannot be asked will say so later."""
        number, leader = next(iter(leaders.items()))
        request = FetchRequest(0, 1, 1, 0, [(self._topic.name, [(number, 0, 1)])])
        with contextlib.suppress(errors.KafkaError):
            answer = await self._client._client.send(leader, request)
            return not any(part[1] in [each.errno for each in DENIALS] for _, parts in answer.topics for part in parts)
        return True

    async def check(self) -> Sequence[Finding]:
        """What is wrong or unwise at the servers; makes nothing there. Raises Denied, Cut."""
        leaders = await self.partitions()
        if leaders:
            return [advice(text) for text in _unwise(self._topic.name, await self.settings())]
        await self._make(only_try=True)
        text = f"there is no topic {self._topic.name} yet: the first node makes it, and what else it may is tried then"
        return [Finding(text, grave=False, last=True)]


def _unwise(name: str, settings: Mapping[str, str]) -> list[str]:
    """Sentences about the settings of a topic that somebody made."""
    found = []
    if not settings:
        found.append(f"the settings of the topic {name} cannot be seen: --operation DescribeConfigs would allow it")
    if "delete" not in settings.get("cleanup.policy", "delete"):
        found.append(f"cleanup.policy of the topic {name} is {settings['cleanup.policy']}: set it to delete")
    kept = int(settings.get("retention.ms", 0))
    if kept < 0 or kept > _LONGEST_RETENTION_MS:
        found.append(f"retention.ms of the topic {name} is {kept}: ten minutes, {_SETTINGS['retention.ms']}, will do")
    if settings.get("message.timestamp.type") == "CreateTime":
        found.append(
            f"message.timestamp.type of the topic {name} is CreateTime: with LogAppendTime a node whose clock is wrong"
            " can publish"
        )
    limit = int(settings.get("max.message.bytes", LARGEST + _ROOM))
    if limit < LARGEST + _ROOM:
        found.append(
            f"max.message.bytes of the topic {name} is {limit}: longer stored messages are read from the store"
        )
    return found


def _told(url: EngineUrl[KafkaOptions]) -> Mapping[str, Any]:
    options = url.options
    told: dict[str, Any] = {
        "bootstrap_servers": [f"{f'[{host}]' if ':' in host else host}:{port}" for host, port in url.hosts],
        "client_id": "postroom",
        "request_timeout_ms": int(1000 * options.timeout),
        "retry_backoff_ms": 50,
        "security_protocol": ("SASL_" if url.username else "") + ("SSL" if options.tls else "PLAINTEXT"),
    }
    if options.tls:
        told["ssl_context"] = tls_context(url.scheme, options)
    elif options.ca_file or options.cert_file:
        raise ConfigurationError("kafka://…: files of certificates need tls=true")
    if url.username:
        if url.password is None:
            raise ConfigurationError("kafka://…: a user needs a password")
        told |= {
            "sasl_mechanism": options.sasl,
            "sasl_plain_username": url.username,
            "sasl_plain_password": url.password,
        }
    return told


async def whole(work: Coroutine[Any, Any, None], seconds: float) -> None:
    """Do it to its end, also where we are cancelled: the library leaves connections behind if it is.

    Raises TimeoutError after so many `seconds`, by which all that it asks for has been answered or given up.
    """
    loop = asyncio.get_running_loop()
    task, end = loop.create_task(work), loop.time() + seconds
    try:
        async with asyncio.timeout_at(end):
            await asyncio.shield(task)
    finally:
        if not task.done():
            await asyncio.wait([task], timeout=max(0.0, end - loop.time()))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


class _Shut(dict[Any, Any]):
    """The connections of a client that is let go: one that its tasks were still opening is closed at once."""

    def __setitem__(self, place: Any, connection: Any) -> None:
        connection.close()
        super().__setitem__(place, connection)


async def let_go(client: Any, *ends: Callable[[], Awaitable[None]]) -> None:
    """Close what the library opened, one way after the other, and the connections of `client` whatever came of that.

    None may take for ever, and the library's own ways end early where a task of theirs has failed. They also raise the
    cancellation of such a task as if it were the caller's.
    """
    task = asyncio.current_task()
    asked = task.cancelling() if task is not None else 0

    async def disconnect() -> None:
        await asyncio.gather(*(each.close() for each in client._conns.values()))

    client._conns = _Shut(client._conns)
    for end in (*ends, disconnect):
        try:
            with contextlib.suppress(Cut, TimeoutError), translated(Exception):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await end()
        except asyncio.CancelledError:
            if task is not None and task.cancelling() > asked:
                raise
