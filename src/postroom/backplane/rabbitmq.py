"""The backplane on RabbitMQ: one exclusive queue a node, bound to what the node follows.

URLs::

    amqp://[user:password@]host[:port][,host[:port]…][/vhost]     amqps:// with TLS

Options, after `?`: `prefix` (of exchanges and queues, `postroom`), `timeout` (seconds until a server that does not
answer is given up, 5), `connect-timeout` (seconds, 3), `queue-bytes` (how much may wait for a node that does not keep
up, 64 MiB; what is older is dropped, which the counters of its publishers tell), `ca-file`, `cert-file`, `key-file`.

Inboxes and users are bound at a direct exchange, `{prefix}.direct`, the rest at a topic exchange, `{prefix}.topic`. One
connection a node, with a channel that publishes and one that listens. Nothing is persistent, acknowledged or confirmed:
the last of a batch is followed by a question on its channel, and the answer says that all of it was routed.
"""

import asyncio
import contextlib
import logging
import random
import re
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Annotated, Any, Final, cast
from uuid import uuid4

import msgspec
from msgspec import Meta

from postroom.backplane.base import Subject, Traits
from postroom.backplane.names import name_of
from postroom.backplane.recovery import Cut, Recovery, reason_of, translated
from postroom.engine_url import EngineUrl, Prefix, Seconds, TlsOptions, take_apart, tls_context
from postroom.errors import BackplaneUnavailable, MissingExtra
from postroom.findings import Finding, advice

try:
    from aiormq import Channel, Connection
    from aiormq.abc import AbstractChannel, DeliveredMessage
    from aiormq.connection import TransportFactory
    from aiormq.exceptions import ChannelNotFoundEntity, InvalidFrameError
    from yarl import URL
except ModuleNotFoundError as error:  # pragma: no cover
    raise MissingExtra("amqp://", "rabbitmq") from error

logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # what it would log, it raises too

_PORTS: Final = {"amqp": 5672, "amqps": 5671}
_CLOSE_SECONDS: Final = 0.5
_BINDINGS_A_SECOND: Final = 2_000
_BINDINGS_AT_ONCE: Final = 200
"""While 400 frames of one channel wait the server reads nothing of the connection's others (its flow control)."""

_OLDEST: Final = (3, 10)
_BOUND: Final = re.compile(r"larger than configured max size (\d+)")


class RabbitOptions(TlsOptions, frozen=True):
    """What may follow the `?` of the URL."""

    prefix: Prefix = "postroom"
    timeout: Seconds = 5.0
    connect_timeout: Seconds = 3.0
    queue_bytes: Annotated[int, Meta(ge=1 << 20)] = 64 * 1024 * 1024


class _Wires(TransportFactory):
    """Opens the library's connections, and can end them without asking."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        self._transports: list[asyncio.WriteTransport] = []

    async def create(self, url: URL, **_: object) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(url.host, url.port, ssl=self._context)
        self._transports.append(writer.transport)
        return reader, writer

    def abort(self) -> None:
        for transport in self._transports:
            transport.abort()


class _Session:
    """One connection with its queue. What is asked of it is done by tasks of its own: the library closes a channel
    whose caller is cancelled."""

    def __init__(self, url: EngineUrl[RabbitOptions], tasks: asyncio.TaskGroup, wires: _Wires) -> None:
        self._options = url.options
        self._url = url
        self._tasks = tasks
        self._wires = wires
        self._connection: Connection | None = None
        self._binding = asyncio.Lock()
        self._bound: set[str] = set()
        self._out: Channel | None = None
        self._in: AbstractChannel | None = None
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue = f"{self._options.prefix}.node.{uuid4().hex}"

    async def connect(self) -> None:
        """Connect to one of the servers."""
        hosts = list(self._url.hosts)
        random.shuffle(hosts)
        for host in hosts:
            try:
                async with asyncio.timeout(self._options.connect_timeout):
                    await self._connect(*host)
                break
            except (Cut, TimeoutError) as error:
                if host == hosts[-1]:
                    raise Cut(f"no connection: {reason_of(error)}") from error

    async def absent(self) -> Sequence[str]:
        """Which of the exchanges are not there."""
        assert self._connection is not None
        found = []
        for exchange in (self.exchange("node."), self.exchange("")):
            channel = await self._connection.channel(publisher_confirms=False)
            try:
                await channel.exchange_declare(exchange, passive=True)
                await channel.close()
            except ChannelNotFoundEntity:
                found.append(exchange)
        return found

    async def withdraw(self, exchanges: Sequence[str]) -> None:
        """Take these away again, but for those that somebody uses by now."""
        assert self._connection is not None
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_CLOSE_SECONDS):
                channel = await self._connection.channel(publisher_confirms=False)
                await channel.queue_delete(self._queue)  # else they are in use
                for exchange in exchanges:
                    await channel.exchange_delete(exchange, if_unused=True)

    async def declare(self) -> None:
        """Declare what is needed."""
        assert self._connection is not None
        self._in = await self._connection.channel(publisher_confirms=False)
        self._out = cast("Channel", await self._connection.channel(publisher_confirms=False))
        await self._in.exchange_declare(self.exchange("node."), exchange_type="direct", durable=True)
        await self._in.exchange_declare(self.exchange(""), exchange_type="topic", durable=True)
        await self._in.queue_declare(
            self._queue,
            exclusive=True,
            auto_delete=True,
            arguments={"x-max-length-bytes": self._options.queue_bytes, "x-overflow": "drop-head"},
        )

    async def _connect(self, host: str, port: int) -> None:
        url = URL.build(
            scheme=self._url.scheme,
            user=self._url.username,
            password=self._url.password,
            host=host,
            port=port,
            path=f"/{self._url.path}",
            query={"heartbeat": str(max(2, int(2 * self._options.timeout))), "name": "postroom"},
            encoded=False,
        )
        self._connection = Connection(url, transport_factory=self._wires)
        with translated(Exception):
            try:
                await self._connection.connect()
            except InvalidFrameError as error:  # the library does not show what the server says here
                raise Cut(f"the server refuses the virtual host {self._connection.vhost!r}") from error

    def exchange(self, name: str) -> str:
        """Where what is called `name` is published."""
        kind = "direct" if name.startswith(("node.", "user.")) else "topic"
        return f"{self._options.prefix}.{kind}"

    async def listen(self, heard: Callable[[str, bytes], None]) -> None:
        """Hand over what comes, from now on."""
        assert self._in is not None

        async def take(message: DeliveredMessage) -> None:
            try:
                heard(message.routing_key or "", message.body)
            except Exception as error:  # the library would log it, and go on
                self._fail(error)

        async def cancelled(_: object) -> None:
            self._fail(Cut("the node's queue was deleted"))

        self._in.on_consumer_cancel_callbacks.add(cancelled)
        await self._in.basic_consume(self._queue, take, no_ack=True, exclusive=True)

    def _fail(self, error: Exception) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)

    async def align(
        self, wanted: Mapping[str, Subject], names: Sequence[str], *, patience: float | None = None
    ) -> None:
        """Return once those of `names` that are wanted are bound, and the others are not.

        Raises TimeoutError where the server does not go on within `patience` seconds.
        """
        channel = self._in
        assert channel is not None
        async with self._binding:
            new = [name for name in names if name in wanted and name not in self._bound]
            for start in range(0, len(new), _BINDINGS_AT_ONCE):
                some = new[start : start + _BINDINGS_AT_ONCE]
                for name in some:
                    await channel.queue_bind(self._queue, self.exchange(name), name, nowait=True)
                async with asyncio.timeout(patience):
                    await channel.basic_qos()
                self._bound.update(some)
        for name in names:
            async with self._binding:  # each by itself: who comes does not wait for all who have left
                if name not in wanted and name in self._bound:
                    self._bound.discard(name)
                    await channel.queue_unbind(self._queue, self.exchange(name), name)

    async def publish(self, batch: Sequence[tuple[str, bytes]]) -> None:
        """Return once all of it was routed."""
        channel = self._out
        assert channel is not None
        for name, payload in batch:
            await channel.basic_publish(payload, exchange=self.exchange(name), routing_key=name, wait=False)
        await self.ask()

    async def ask(self) -> None:
        """Return once the server has done all that was published before."""
        assert self._out is not None
        await self._out.basic_qos()

    def do(self, work: Coroutine[Any, Any, None]) -> asyncio.Future[None]:
        """Do it whether or not somebody waits for the end."""
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def run() -> None:
            try:
                with translated(Exception):
                    await work
            except Cut as error:
                _settle(outcome, error)
            except BaseException:
                _settle(outcome, Cut("the connection was lost"))
                raise
            else:
                _settle(outcome, None)

        self._tasks.create_task(run())
        return outcome

    async def silence(self) -> str:
        """Why there is no answer."""
        assert self._connection is not None
        try:
            async with asyncio.timeout(0):
                await self._connection.ready()
        except TimeoutError:
            return "the server takes no messages: an alarm says that it is short of memory or disk"
        return "no answer in time"

    @property
    def server(self) -> Mapping[str, object]:
        """What the server says of itself."""
        assert self._connection is not None
        return self._connection.server_properties

    async def watch(self, recovery: Recovery, seconds: float) -> None:
        """Raise once the connection is lost, or does not answer, or is to be cut."""
        assert self._connection is not None
        assert self._in is not None
        assert self._out is not None
        ends = [each.closing for each in (self._connection, self._in, self._out)]
        for end in (self.failed, *ends):
            end.add_done_callback(lambda _: recovery.cut())
        while not await recovery.until_cut(seconds):
            try:
                async with asyncio.timeout(seconds):
                    await self.do(self.ask())
            except TimeoutError:
                raise Cut(await self.silence()) from None
        if self.failed.done():
            self.failed.result()
        reasons = [reason_of(error) for end in ends if end.done() and (error := _error_of(end)) is not None]
        raise Cut(next(iter(reasons), "it was asked for"))

    async def close(self) -> None:
        """Say goodbye, and hang up in any case."""
        self.failed.cancel()
        if self._connection is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._connection.close()
        self._wires.abort()


def remarks(server: Mapping[str, object]) -> Sequence[Finding]:
    """What an operator should know of a server that says this of itself."""
    product, version = server.get("product"), str(server.get("version"))
    if product != "RabbitMQ":
        return [advice(f"the server is {product} {version}: Postroom is tested with RabbitMQ")]
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < _OLDEST:
        return [advice(f"version {version} is older than 3.10, the oldest that Postroom is tested with")]
    return []


def _error_of(end: asyncio.Future[Any]) -> BaseException | None:
    return None if end.cancelled() else end.exception()


def _settle(outcome: asyncio.Future[None], error: Exception | None) -> None:
    if outcome.done():
        return
    if error is None:
        outcome.set_result(None)
    else:
        outcome.set_exception(error)
        outcome.exception()  # whoever asked may have gone


class RabbitBackplane:
    """`url`: see above."""

    traits = Traits(max_payload_bytes=16 * 1024 * 1024, keeps_order_across_reconnect=True, survives_restart=False)

    def __init__(self, url: str) -> None:
        scheme = url.partition(":")[0]
        self._url = take_apart(url, RabbitOptions, port=_PORTS.get(scheme, 5672))
        self._context = tls_context(scheme, self._url.options) if scheme == "amqps" else None
        self._wanted: dict[str, Subject] = {}
        self._session: _Session | None = None
        self._recovery = Recovery()

    async def run(self, received: Callable[[Subject, bytes], None], interrupted: Callable[[], None]) -> None:
        """Receive until cancelled."""

        def heard(name: str, payload: bytes) -> None:
            subject = self._wanted.get(name)
            if subject is not None and (self._recovery.up or self._recovery.fresh):
                received(subject, payload)

        async def session(established: Callable[[], None]) -> None:
            async with self._connected() as one:
                await self._prepare(one, self._wanted, heard)
                self._session = one
                established()
                try:
                    await one.watch(self._recovery, self._url.options.timeout / 2)
                except Cut as cut:
                    self._learn_bound(str(cut))
                    raise
                finally:
                    self._recovery.down()
                    self._session = None

        await self._recovery.run(session, interrupted)

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[_Session]:
        async with asyncio.TaskGroup() as tasks:
            one = _Session(self._url, tasks, _Wires(self._context))
            try:
                await one.connect()
                yield one
            finally:
                await one.close()

    async def _prepare(self, one: _Session, wanted: Mapping[str, Subject], heard: Callable[[str, bytes], None]) -> None:
        """Return once the session hears what is wanted."""
        patience = self._url.options.timeout
        with translated(Exception):
            async with asyncio.timeout(patience):
                await one.declare()
            # However long all of it takes: one that gives up has the server take away what it has bound.
            await one.align(wanted, [*wanted], patience=patience)
            async with asyncio.timeout(patience):
                await one.listen(heard)

    def _learn_bound(self, said: str) -> None:
        # The server tells its max_message_size only to who has sent more.
        if told := _BOUND.search(said):
            self.traits = msgspec.structs.replace(self.traits, max_payload_bytes=int(told[1]))

    async def check(self) -> Sequence[Finding]:
        """See `Checks`."""
        try:
            async with self._connected() as one:
                with translated(Exception):
                    absent = await one.absent()
                    try:
                        await self._try(one)
                    finally:
                        await one.withdraw(absent)
                found = [*remarks(one.server)]
        except ExceptionGroup as group:
            raise BackplaneUnavailable(f"RabbitMQ: {reason_of(group)}") from group
        if absent:
            text = f"{' and '.join(absent)} are not there: the first node declares what is missing"
            found.append(Finding(text, grave=False, last=True))
        return found

    async def _try(self, one: _Session) -> None:
        name, heard = f"node.check-{uuid4().hex}", asyncio.Event()
        await self._prepare(one, {name: Subject(name)}, lambda name, payload: heard.set())
        try:
            async with asyncio.timeout(self._url.options.timeout):
                await one.do(one.publish([(name, b"")]))
                await heard.wait()
        except TimeoutError:
            raise Cut(await one.silence()) from None

    async def subscribe(self, subjects: Sequence[Subject]) -> None:
        """Return once these are in force. Raises BackplaneUnavailable."""
        names = [name_of(subject) for subject in subjects]
        self._wanted.update(zip(names, subjects, strict=True))
        await self._do(lambda session: session.align(self._wanted, names), len(names), waits=True)

    async def unsubscribe(self, subjects: Sequence[Subject]) -> None:
        """These are no longer wanted."""
        names = [name for subject in subjects if self._wanted.pop(name := name_of(subject), None) is not None]
        with contextlib.suppress(BackplaneUnavailable):  # then they are gone with the connection
            await self._do(lambda session: session.align(self._wanted, names), len(names))

    async def publish(self, batch: Sequence[tuple[Subject, bytes]]) -> None:
        """Send each payload to whoever is subscribed; it was routed on return. Raises BackplaneUnavailable."""
        named = [(name_of(subject), payload) for subject, payload in batch]
        await self._do(lambda session: session.publish(named))

    async def reconnect(self) -> None:
        """Build the connection up again."""
        self._recovery.cut()

    async def _do(
        self, what: Callable[[_Session], Coroutine[Any, Any, None]], bindings: int = 0, *, waits: bool = False
    ) -> None:
        session = None
        try:
            async with asyncio.timeout(self._url.options.timeout + bindings / _BINDINGS_A_SECOND):
                if waits or self._recovery.fresh:
                    await self._recovery.wait_up()
                self._recovery.demand_up()
                session = self._session
                if session is None:
                    raise Cut("the connection was lost")
                await session.do(what(session))
        except (Cut, OSError, TimeoutError) as error:
            if session is not None and isinstance(error, TimeoutError):
                raise self._recovery.unavailable(Cut(await session.silence())) from error
            raise self._recovery.unavailable(error) from error
