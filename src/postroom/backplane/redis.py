"""The backplane on Redis and Valkey: pub/sub, sharded (SSUBSCRIBE, SPUBLISH) in a Cluster.

One connection a server listens and does nothing else; publishes travel on others. The client library's own
re-connection is not used: it hides that messages were lost.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from postroom.backplane.base import Subject, Traits
from postroom.backplane.recovery import Cut, Recovery
from postroom.backplane.recovery import reason_of as reason_in
from postroom.cancelling import end_if_cancelled
from postroom.errors import BackplaneUnavailable, ConfigurationError, MissingExtra, StoreUnavailable
from postroom.redis_link import CUT, client_of, connect, parse_url, reason_of, translated

try:
    from redis import exceptions as redis_errors
    from redis.asyncio.sentinel import MasterNotFoundError
except ModuleNotFoundError as error:  # pragma: no cover
    raise MissingExtra("redis://", "redis") from error

_AT_ONCE: Final = 512
"""How many channels one SUBSCRIBE names: 512 in one cost a tenth of 512 alone (measured)."""


_RIGHTS: Final = Subject("rights")
"""Where it is tried whether the user may subscribe and publish."""

_ROLE_SECONDS: Final = 2.0
"""How often it is asked whether the server is still a primary."""

_NEVER: Final = (redis_errors.NoPermissionError, redis_errors.AuthenticationError)
"""What does not become right by waiting."""


@contextlib.contextmanager
def _driver() -> Iterator[None]:
    """What the driver raises where a connection ends under its hands is a cut; see `redis_link.CUT`."""
    try:
        yield
    except (RuntimeError, AttributeError, MasterNotFoundError) as error:
        raise Cut(reason_of(error)) from error


class _Line:
    """One listening connection, and the channels that it confirmed."""

    def __init__(self, connection: Any, command: str, seconds: float) -> None:
        self._connection = connection
        self._subscribe, self._unsubscribe = command, command.replace("SUBSCRIBE", "UNSUBSCRIBE")
        self._seconds = seconds
        self._writing = asyncio.Lock()
        self._asked: dict[bytes, asyncio.Future[None]] = {}
        self.channels: set[bytes] = set()

    async def open(self) -> None:
        with _driver():
            await self._connection.connect()

    async def close(self) -> None:
        for waiting in self._asked.values():
            waiting.cancel()
        with contextlib.suppress(Exception):
            await self._connection.disconnect(nowait=True)

    async def add(self, channels: Sequence[bytes]) -> None:
        """Return once these are in force."""
        new = [channel for channel in channels if channel not in self.channels]
        loop = asyncio.get_running_loop()
        waiting = [self._asked.setdefault(channel, loop.create_future()) for channel in new]
        for group in self._groups(new):
            await self._send(self._subscribe, *group)
        if waiting:
            await asyncio.gather(*waiting)

    async def remove(self, channels: Sequence[bytes]) -> None:
        self.channels.difference_update(channels)
        for group in self._groups(channels):
            await self._send(self._unsubscribe, *group)

    def _groups(self, channels: Sequence[bytes]) -> Iterable[Sequence[bytes]]:
        # In a Cluster the channels of one command must share a slot.
        size = _AT_ONCE if self._subscribe == "SUBSCRIBE" else 1
        return (channels[start : start + size] for start in range(0, len(channels), size))

    async def _send(self, *command: bytes | str) -> None:
        async with self._writing:
            with _driver():
                await self._connection.send_command(*command)
            end_if_cancelled()

    async def _read(self) -> Any:
        with _driver():
            reply = await self._connection.read_response(timeout=self._seconds / 2, push_request=True)
        if reply is None:  # so the driver says that the time is over
            end_if_cancelled()
            raise TimeoutError
        return reply

    async def listen(self, heard: Callable[[bytes, bytes], None]) -> None:
        """Hand over what comes, until the connection is cut or does not answer."""
        asked = False
        while True:
            try:
                reply = await self._read()
            except (TimeoutError, redis_errors.TimeoutError):
                if asked:
                    raise Cut("the server does not answer") from None
                await self._send("PING")
                asked = True
                continue
            asked = False
            if isinstance(reply, Exception):
                raise reply
            kind = reply[0] if isinstance(reply, list) else reply
            if kind in (b"message", b"smessage"):
                heard(reply[1], reply[2])
            elif kind in (b"subscribe", b"ssubscribe"):
                self.channels.add(reply[1])
                waiting = self._asked.pop(reply[1], None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(None)
            elif kind == b"sunsubscribe" and reply[1] in self.channels:
                raise Cut("a slot has moved")  # the server took it away: not what we asked for


class _Voice:
    """Publishes at one primary of a Cluster, over one connection: what the client for all of them sends one by one."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._using = asyncio.Lock()

    async def say(self, batch: Sequence[tuple[bytes, bytes]]) -> None:
        """Publish them in order, those of one call after those of the call before."""
        async with self._using:
            pipeline = self._client.pipeline(transaction=False)
            for channel, payload in batch:
                pipeline.execute_command("SPUBLISH", channel, payload)
            await pipeline.execute()
            end_if_cancelled()

    async def close(self) -> None:
        """End the connection."""
        with contextlib.suppress(Exception):
            await self._client.aclose()


class RedisBackplane:
    """`url`: see `postroom.redis_link`."""

    traits = Traits(max_payload_bytes=16 * 1024 * 1024, keeps_order_across_reconnect=True, survives_restart=False)

    def __init__(self, url: str) -> None:
        self._url = parse_url(url)
        self._client: Any = None
        self._cluster = self._url.kind == "cluster"
        # For one server: beyond its connections the client raises, where it could wait.
        self._free = asyncio.Semaphore(self._url.options.pool)
        # The server's channels are the same in all of its databases.
        database = f"db{self._url.database}:" if self._url.database else ""
        self._prefix = f"{self._url.options.prefix}:{database}"
        self._wanted: dict[Subject, bytes] = {}
        self._lines: dict[str, _Line] = {}
        self._voices: dict[tuple[str, int], _Voice] = {}
        self._recovery = Recovery(redis_errors.RedisError)

    async def run(self, received: Callable[[Subject, bytes], None], interrupted: Callable[[], None]) -> None:
        """Receive until cancelled."""
        start = len(self._prefix.encode())

        def heard(channel: bytes, payload: bytes) -> None:
            subject = Subject(channel[start:].decode())
            if (self._recovery.up or self._recovery.fresh) and subject != _RIGHTS:
                received(subject, payload)

        async def session(established: Callable[[], None]) -> None:
            try:
                async with asyncio.TaskGroup() as lines:
                    await self._open(lines, heard)
                    if self._recovery.fresh:
                        await self._check()
                    established()
                    if not self._cluster:
                        lines.create_task(self._watch_role())
                    await self._recovery.until_cut()
                    raise Cut("it was asked for")
            except* _NEVER as group:
                if self._recovery.fresh:  # later an administrator may be at work
                    raise ConfigurationError(f"the backplane refuses this user: {reason_in(group)}") from group
                raise
            finally:
                self._recovery.down()
                await self._close()

        self._client = connect(self._url)
        try:
            await self._recovery.run(session, interrupted)
        finally:
            await self._client.aclose()

    async def subscribe(self, subjects: Sequence[Subject]) -> None:
        """Return once these are in force. Raises BackplaneUnavailable."""
        for subject in subjects:
            self._wanted[subject] = self._channel(subject)
        seconds = self._url.options.timeout
        try:
            async with asyncio.timeout(seconds):
                await self._recovery.wait_up()
                await self._put(subjects)
        except (OSError, redis_errors.RedisError, Cut, asyncio.CancelledError) as error:
            end_if_cancelled()
            raise self._recovery.unavailable(error) from error

    async def unsubscribe(self, subjects: Sequence[Subject]) -> None:
        """These are no longer wanted."""
        gone = [channel for subject in subjects if (channel := self._wanted.pop(subject, None)) is not None]
        try:
            await self._remove(gone)
        except (OSError, redis_errors.RedisError, Cut):  # then all are gone
            end_if_cancelled()

    async def publish(self, batch: Sequence[tuple[Subject, bytes]]) -> None:
        """Send each payload to whoever is subscribed. Raises BackplaneUnavailable."""
        if self._client is None:
            raise BackplaneUnavailable("the backplane is not connected yet")
        try:
            with translated():
                if self._cluster:
                    await self._publish_sharded(batch)
                else:
                    async with self._free:
                        await self._publish_together(batch)
        except StoreUnavailable as error:
            raise BackplaneUnavailable(str(error)) from error

    async def reconnect(self) -> None:
        """Build the listening connections up again."""
        self._recovery.cut()

    # ── connections ───────────────────────────────────────────────────────────────────────────────────

    async def _open(self, lines: asyncio.TaskGroup, heard: Callable[[bytes, bytes], None]) -> None:
        options = self._url.options
        for name, connection in await self._connections():
            line = self._lines[name] = _Line(
                connection, "SSUBSCRIBE" if self._cluster else "SUBSCRIBE", options.timeout
            )
            await line.open()
            lines.create_task(line.listen(heard))
        async with asyncio.timeout(options.timeout + len(self._wanted) / 10_000):
            await self._put([*self._wanted])

    async def _check(self) -> None:
        """Subscribe and publish, to find out whether this user may."""
        await self._put([_RIGHTS])
        await self._execute("SPUBLISH" if self._cluster else "PUBLISH", _RIGHTS, b"")
        await self._remove([self._channel(_RIGHTS)])

    async def _watch_role(self) -> None:
        """End the session where the server becomes a replica.

        It keeps its connections then, while the address leads to another server: what is published here reaches
        nobody there, and this node hears itself all the same.
        """
        while True:
            await asyncio.sleep(_ROLE_SECONDS)
            try:
                role = (await self._client.execute_command("INFO", "replication")).get("role")
            except redis_errors.NoPermissionError:
                return  # only the store's user needs this right
            except (redis_errors.RedisError, *CUT):
                role = "master"  # a server that is away shows by other signs
            end_if_cancelled()
            if role != "master":
                raise Cut(f"the server is a {role} now")

    async def _remove(self, channels: Sequence[bytes]) -> None:
        for line in self._lines.values():
            if mine := [channel for channel in channels if channel in line.channels]:
                await line.remove(mine)

    async def _connections(self) -> list[tuple[str, Any]]:
        if not self._cluster:
            return [("", self._client.connection_pool.make_connection())]
        with _driver():
            await self._client.initialize()
            await self._client.nodes_manager.initialize()
        return [(node.name, node.connection_class(**node.connection_kwargs)) for node in self._client.get_primaries()]

    async def _put(self, subjects: Sequence[Subject]) -> None:
        by_line: dict[str, list[bytes]] = {}
        for subject in subjects:
            channel = self._channel(subject)
            name = self._client.get_node_from_key(channel).name if self._cluster else ""
            by_line.setdefault(name, []).append(channel)
        for name, channels in by_line.items():
            line = self._lines.get(name)
            if line is None:
                self._recovery.cut()
                raise redis_errors.ConnectionError("the Cluster has another primary now")
            await line.add(channels)

    async def _close(self) -> None:
        lines, self._lines = self._lines, {}
        for line in lines.values():
            await line.close()
        voices, self._voices = self._voices, {}
        for voice in voices.values():
            await voice.close()
        # Connections that publish may be as dead as the one that listened.
        with contextlib.suppress(Exception):
            if self._cluster:
                await self._client.aclose()
            else:
                await self._client.connection_pool.disconnect(inuse_connections=False)

    async def _publish_together(self, batch: Sequence[tuple[Subject, bytes]]) -> None:
        if len(batch) == 1:
            ((subject, payload),) = batch
            await self._execute("PUBLISH", subject, payload)
            return
        pipeline = self._client.pipeline(transaction=False)
        for subject, payload in batch:
            pipeline.execute_command("PUBLISH", self._channel(subject), payload)
        await pipeline.execute()
        end_if_cancelled()

    async def _publish_sharded(self, batch: Sequence[tuple[Subject, bytes]]) -> None:
        by_primary: dict[tuple[str, int], list[tuple[bytes, bytes]]] = {}
        for subject, payload in batch:
            channel = self._channel(subject)
            node = self._client.get_node_from_key(channel)
            by_primary.setdefault((node.host, node.port), []).append((channel, payload))
        try:
            await asyncio.gather(*(self._voice(address).say(said) for address, said in by_primary.items()))
        except redis_errors.MovedError:
            self._recovery.cut()  # what is wanted must be asked for anew as well
            raise

    def _voice(self, address: tuple[str, int]) -> _Voice:
        voice = self._voices.get(address)
        if voice is None:
            voice = self._voices[address] = _Voice(client_of(self._url, address, 1))
        return voice

    async def _execute(self, command: str, subject: Subject, payload: bytes) -> None:
        await self._client.execute_command(command, self._channel(subject), payload)
        end_if_cancelled()

    def _channel(self, subject: Subject) -> bytes:
        channel = self._wanted.get(subject)
        return channel if channel is not None else f"{self._prefix}{subject}".encode()
