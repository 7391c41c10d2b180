"""The servers behind the Redis engine: which one owns a slot, the scripts, and one exchange with one server."""

import asyncio
import contextlib
import hashlib
from binascii import crc_hqx
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from importlib.resources import files
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import structlog
from redis import exceptions as redis_errors

from postroom.cancelling import end_if_cancelled
from postroom.errors import StoreUnavailable
from postroom.findings import Finding, advice
from postroom.redis_link import CUT, RedisUrl, pool_of, reason_of

_log = structlog.get_logger("postroom.store")

_SLOTS: Final = 16_384
_LUA: Final = files("postroom.store") / "lua"

_pack: Any
try:
    from hiredis import pack_command as _pack
except ModuleNotFoundError:  # pragma: no cover
    _pack = None


class Script:
    """A script of `lua/`. `flags` are the server's words for what it may do besides."""

    def __init__(self, name: str, flags: str = "") -> None:
        head = f"#!lua flags=allow-cross-slot-keys{',' if flags else ''}{flags}\n"
        text = head + (_LUA / "log.lua").read_text() + (_LUA / f"{name}.lua").read_text()
        self.name = name
        self.text = text.encode()
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode()

    def call(self, *arguments: bytes, by_text: bool = False) -> Sequence[bytes]:
        """The command that runs it. `by_text`: the server does not know it yet."""
        return (b"EVAL", self.text, b"0", *arguments) if by_text else (b"EVALSHA", self.sha, b"0", *arguments)


class NotSent(Exception):
    """Nothing has reached the server."""


class Unanswered(Exception):
    """It was sent, and there is no answer."""


class Server:
    """One server that takes writes, by its connections: one for appends, the others for all else.

    `down`: it was given up, and has not answered since.
    """

    def __init__(self, name: str, url: RedisUrl, address: tuple[str, int] | None) -> None:
        self.name = name
        self.down = False
        self._seconds = url.options.timeout
        self._reads = pool_of(url, address, url.options.pool, self._opened)
        self._free = asyncio.Semaphore(url.options.pool)
        self._appends = pool_of(url, address, 1, self._connected)
        self._age = 0  # grows when the connections so far turn out to lead to a replica
        self._ages: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
        self._appending = asyncio.Lock()
        self._appender = _Client(b"", b"")
        self._doubtful: _Client | None = None

    async def exchange(self, commands: Sequence[Sequence[bytes]], seconds: float) -> list[Any]:
        """Send `commands` in one go; their replies, an error reply among them as an exception.

        Raises NotSent or Unanswered.
        """
        async with _within(seconds, self._free):
            return await self._exchange(self._reads, lambda: commands, seconds)

    async def append(self, commands: Sequence[Sequence[bytes]], seconds: float) -> list[Any]:
        """The same on the connection for appends; one call at a time.

        What an earlier call has sent and got no answer to is either done when this one is, or never will be: the
        network may still hold it, and so the server is told to close the connection that it would come from.
        """
        async with _within(seconds, self._appending):
            before: list[Sequence[bytes]] = []

            def after_the_doubtful() -> Sequence[Sequence[bytes]]:
                # Known only once there is a connection, for a number means nothing to another server.
                if self._doubtful is not None and self._doubtful.run == self._appender.run:
                    before.append((b"CLIENT", b"KILL", b"ID", self._doubtful.id))
                return (*before, *commands)

            try:
                replies = await self._exchange(self._appends, after_the_doubtful, seconds)
            except Unanswered:
                self._doubtful = self._appender
                raise
            self._doubtful = None
            return replies[len(before) :]

    async def _exchange(
        self, pool: Any, commands: Callable[[], Sequence[Sequence[bytes]]], seconds: float
    ) -> list[Any]:
        try:
            async with asyncio.timeout(seconds):
                connection = await self._take(pool)
        except (redis_errors.RedisError, *CUT) as error:
            end_if_cancelled()
            if _is_final(error):
                raise
            raise NotSent(reason_of(error)) from error
        age = self._ages[connection]
        try:
            async with asyncio.timeout(seconds):
                replies = await _converse(connection, commands())
        except (redis_errors.RedisError, *CUT) as error:
            await connection.disconnect(nowait=True)
            end_if_cancelled()
            raise Unanswered(reason_of(error)) from error
        finally:
            await pool.release(connection)
        end_if_cancelled()
        if any(isinstance(reply, redis_errors.ReadOnlyError) for reply in replies):
            self._age = max(self._age, age + 1)
        return replies

    async def _take(self, pool: Any) -> Any:
        """A connection to what the address leads to now.

        A primary that becomes a replica keeps its connections: they refuse writes for good, and what is read there
        may be old, while the address leads to the new primary.
        """
        connection = await pool.get_connection()
        if self._ages[connection] != self._age:
            try:
                await connection.disconnect()
                await connection.connect()
            except BaseException:
                await pool.release(connection)
                raise
        return connection

    async def _opened(self, connection: Any) -> None:
        self._ages[connection] = self._age

    async def _connected(self, connection: Any) -> None:
        await self._opened(connection)
        # Without these rights the node goes on: what they guard against takes a network that delivers late.
        known = []
        for command in ((b"CLIENT", b"ID"), (b"INFO", b"server")):
            await connection.send_command(*command)
            try:
                known.append(await connection.read_response())
            except redis_errors.ResponseError:
                return
        self._appender = _Client(b"%d" % known[0], _lines(known[1]).get("run_id", "").encode())

    async def ask(self, *command: bytes, script: Script | None = None) -> Any:
        """The reply to one command, or to `script` with these arguments. Raises StoreUnavailable."""
        try:
            (reply,) = await self.exchange([script.call(*command) if script else command], self._seconds)
            if script is not None and isinstance(reply, redis_errors.NoScriptError):
                (reply,) = await self.exchange([script.call(*command, by_text=True)], self._seconds)
        except (NotSent, Unanswered, redis_errors.RedisError) as error:
            raise StoreUnavailable(f"{self.name}: {reason_of(error)}") from error
        if isinstance(reply, Exception):
            raise StoreUnavailable(f"{self.name}: {reply}") from reply
        return reply

    async def close(self) -> None:
        """Close its connections."""
        for pool in (self._reads, self._appends):
            await pool.aclose()


@contextlib.asynccontextmanager
async def _within(seconds: float, lock: asyncio.Lock | asyncio.Semaphore) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            await lock.acquire()
    except TimeoutError:
        raise NotSent("the calls before this one take too long") from None
    try:
        yield
    finally:
        lock.release()


class _Client(NamedTuple):
    """A connection as the server knows it: its number, and which start of the server gave it."""

    id: bytes
    run: bytes


async def _converse(connection: Any, commands: Sequence[Sequence[bytes]]) -> list[Any]:
    packed = [_pack(tuple(c)) for c in commands] if _pack is not None else connection.pack_commands(commands)
    await connection.send_packed_command(packed, check_health=False)
    replies: list[Any] = []
    for _ in commands:
        try:
            replies.append(await connection.read_response())
        except redis_errors.ConnectionError as error:
            # Some refusals are told as if the connection were broken; of what follows them there is no reply then.
            if len(commands) > 1 or not isinstance(error, _REFUSALS):
                raise
            replies.append(error)
        except redis_errors.ResponseError as error:
            replies.append(error)
    return replies


_REFUSALS: Final = (redis_errors.BusyLoadingError, redis_errors.AuthenticationError)


def _is_final(error: BaseException) -> bool:
    # A wrong password does not become right by waiting.
    refused = isinstance(error, redis_errors.AuthenticationError | redis_errors.ResponseError)
    return refused and not isinstance(error, redis_errors.BusyLoadingError)


class Servers:
    """All servers, and who owns which slot; outside a Cluster there is one, which owns them all.

    `trouble`: why a server of the Cluster did not say who owns what.
    """

    def __init__(self, url: RedisUrl) -> None:
        self._url = url
        self._cluster = url.kind == "cluster"
        self._known: dict[tuple[str, int], Server] = {}
        self._owners: list[Server | None] = [None] * _SLOTS
        self._only: Server | None = None
        self._refreshing = asyncio.Lock()
        self.trouble = ""
        if not self._cluster:
            server = Server(url.name, url, None)
            self._known["", 0] = server
            self._owners = [server] * _SLOTS
            self._only = server

    @property
    def all(self) -> Sequence[Server]:
        """Every server that owns something."""
        return list(dict.fromkeys(server for server in self._owners if server is not None))

    @property
    def wait_replicas(self) -> int:
        """How many replicas must have an append."""
        return self._url.options.wait_replicas

    def owner(self, tag: bytes) -> Server | None:
        """Who owns the keys with this hash tag; None where nobody is known to."""
        return self._only or self._owners[slot_of(tag)]

    def share(self, tag: bytes) -> int:
        """Equal for keys that one script can reach whatever happens: in a Cluster those of a slot, else all."""
        return slot_of(tag) if self._cluster else 0

    async def refresh(self) -> None:
        """Ask a Cluster anew who owns what. What cannot be learnt stays as it was."""
        if not self._cluster:
            return
        async with self._refreshing:
            for address in dict.fromkeys((*self._known, *self._url.hosts)):
                try:
                    (slots,) = await self._at(*address).exchange(
                        [(b"CLUSTER", b"SLOTS")], self._url.options.connect_timeout
                    )
                except (NotSent, Unanswered, redis_errors.RedisError) as error:
                    _log.debug("a server of the cluster does not say who owns what", server=address, reason=str(error))
                    self.trouble = reason_of(error)
                    continue
                if isinstance(slots, Exception):
                    self.trouble = str(slots)
                if isinstance(slots, list) and slots:
                    self._learn(slots, address[0])
                    return

    def _at(self, host: str, port: int) -> Server:
        if (host, port) not in self._known:
            self._known[host, port] = Server(f"{host}:{port}", self._url, (host, port))
        return self._known[host, port]

    def _learn(self, slots: Iterable[Any], asked: str) -> None:
        owners: list[Server | None] = [None] * _SLOTS
        for first, last, (host, port, *_), *_ in slots:
            server = self._at(host.decode() if host else asked, port)
            owners[first : last + 1] = [server] * (last + 1 - first)
        self._owners = owners

    async def close(self) -> None:
        """Close all connections."""
        for server in self._known.values():
            await server.close()


def slot_of(tag: bytes) -> int:
    """The slot of all keys with this hash tag."""
    return crc_hqx(tag, 0) % _SLOTS


def demand(found: Iterable[Finding]) -> None:
    """Warn of what is found, and raise StoreUnavailable where it is grave."""
    for finding in found:
        if finding.grave:
            raise StoreUnavailable(finding.text)
        _log.warning(finding.text)


async def findings(servers: Servers) -> Sequence[Finding]:
    """What is missing at the servers. Raises StoreUnavailable where one does not answer."""
    if not servers.all:
        return [Finding(f"no server tells who owns what in the Cluster: {servers.trouble or 'none of them knows'}")]
    found: list[Finding] = []
    for server in servers.all:
        about = _lines(await server.ask(b"INFO", b"server"))
        version = about.get("valkey_version") or about.get("redis_version", "0")
        if int(version.split(".")[0]) < 7:
            found.append(Finding(f"{server.name}: version {version} is too old; Redis 7 or Valkey 7.2 at least"))
            continue
        try:
            found += await _advice(server, servers.wait_replicas)
        except StoreUnavailable as error:
            _log.debug("the server's settings may not be looked at", server=server.name, reason=str(error))
    return found


async def _advice(server: Server, wait_replicas: int) -> Sequence[Finding]:
    found = []
    replicas = int(_lines(await server.ask(b"INFO", b"replication")).get("connected_slaves", 0))
    if replicas < wait_replicas:
        found.append(
            advice(
                f"{server.name}: no durable message is accepted now: wait-replicas is {wait_replicas},"
                f" and {replicas} are connected"
            )
        )
    policy = _lines(await server.ask(b"INFO", b"memory")).get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        found.append(
            advice(f"{server.name}: the server may evict messages ({policy}): set maxmemory-policy to noeviction")
        )
    if _lines(await server.ask(b"INFO", b"persistence")).get("aof_enabled") == "0":
        _, save = await server.ask(b"CONFIG", b"GET", b"save")
        if not save:
            found.append(advice(f"{server.name}: the server keeps nothing across a restart: set appendonly to yes"))
    return found


def _lines(info: bytes) -> dict[str, str]:
    pairs = (line.partition(":") for line in info.decode().splitlines())
    return {name: value for name, colon, value in pairs if colon}
