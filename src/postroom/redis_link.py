"""What store and backplane need of Redis and Valkey alike: the URL, the client, and the client's errors.

URLs::

    redis://[user:password@]host[:port][/db]           one server; rediss:// with TLS
    redis+unix://[user:password@]/path/to/socket       one server at a Unix socket of this machine
    redis+sentinel://[user:password@]host:port,host:port/service
    redis+cluster://[user:password@]host:port,host:port

Options, after `?`: `prefix` (of every key and channel, `postroom`), `timeout` (seconds that a call may take, 5),
`connect-timeout` (seconds, 3), `pool` (connections for reads, 8), `max-redirects` (Cluster, 8), `tls` (`true` for
Sentinel and Cluster), `ca-file`, `wait-replicas` (how many replicas must have an append before it counts as stored, 0),
`wait-timeout` (seconds to wait for them, 1), `sentinel-user`, `sentinel-password`, `db` (at a Unix socket, 0).
"""

import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import unquote

import msgspec
from msgspec import Meta, Struct

from postroom.cancelling import end_if_cancelled
from postroom.engine_url import Seconds, take_apart
from postroom.errors import ConfigurationError, MissingExtra, OutcomeUnknown, StoreUnavailable

try:
    from redis import exceptions as redis_errors
    from redis.asyncio import Redis, RedisCluster, Sentinel
    from redis.asyncio.cluster import ClusterNode
    from redis.asyncio.retry import Retry
    from redis.asyncio.sentinel import SentinelConnectionPool
    from redis.backoff import NoBackoff
except ModuleNotFoundError as error:  # pragma: no cover
    raise MissingExtra("redis://", "redis") from error

_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379


class RedisOptions(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """What may follow the `?` of the URL."""

    prefix: Annotated[str, Meta(min_length=1, pattern=r"^[^{}\s]+$")] = "postroom"
    timeout: Seconds = 5.0
    connect_timeout: Seconds = 3.0
    pool: Annotated[int, Meta(ge=1, le=1000)] = 8
    max_redirects: Annotated[int, Meta(ge=1, le=100)] = 8
    tls: bool = False
    ca_file: str | None = None
    wait_replicas: Annotated[int, Meta(ge=0, le=100)] = 0
    wait_timeout: Seconds = 1.0
    sentinel_user: str | None = None
    sentinel_password: str | None = None
    db: Annotated[int, Meta(ge=0)] = 0


class RedisUrl(Struct, frozen=True):
    """A URL taken apart. `kind` is `standalone`, `unix`, `sentinel` or `cluster`.

    `service` is the Sentinel's name of it; at a Unix socket `hosts` is empty and `socket` is its path.
    """

    kind: str
    hosts: tuple[tuple[str, int], ...]
    username: str | None
    password: str | None
    database: int
    service: str
    options: RedisOptions
    socket: str = ""

    @property
    def name(self) -> str:
        """What to call the server, or the service."""
        return self.service or self.socket or "{}:{}".format(*self.hosts[0])


def parse_url(url: str) -> RedisUrl:
    """Take `url` apart. Raises ConfigurationError; what it says holds no password."""
    scheme, separator, _ = url.partition("://")
    kind = {"redis": "standalone", "rediss": "standalone", "valkey": "standalone", "valkeys": "standalone"}.get(scheme)
    kind = {"redis+sentinel": "sentinel", "redis+cluster": "cluster", "redis+unix": "unix"}.get(scheme, kind)
    if kind is None or not separator:
        schemes = "redis://, rediss://, redis+unix://, redis+sentinel:// or redis+cluster://"
        raise ConfigurationError(f"{scheme}: write {schemes}")
    port = _SENTINEL_PORT if kind == "sentinel" else _PORT
    parts = take_apart(url, RedisOptions, port=port, local=kind == "unix")
    path, options = parts.path, parts.options
    if options.ca_file is not None and not Path(options.ca_file).is_file():
        raise ConfigurationError(f"{scheme}://…: ca-file: there is no file {options.ca_file}")
    if scheme in ("rediss", "valkeys"):
        options = msgspec.structs.replace(options, tls=True)
    if kind == "standalone" and len(parts.hosts) > 1:
        raise ConfigurationError(f"{scheme}://…: one server; for several write redis+cluster:// or redis+sentinel://")
    if kind == "sentinel" and not path:
        raise ConfigurationError(f"{scheme}://…: name the service that the sentinels watch: …/mymaster")
    if kind == "unix" and (parts.hosts or not path):
        raise ConfigurationError(f"{scheme}://…: name the socket by its whole path: {scheme}:///run/valkey/valkey.sock")
    if kind == "unix" and options.tls:
        raise ConfigurationError(f"{scheme}://…: a Unix socket has no TLS")
    if kind != "unix" and options.db:
        raise ConfigurationError(
            f"{scheme}://…: db is for Unix sockets; here the database follows the host: …/{options.db}"
        )
    database = options.db
    if kind == "standalone" and path:
        if not path.isdecimal():
            raise ConfigurationError(f"{scheme}://…: after / comes the number of a database, not {path!r}")
        database = int(path)
    return RedisUrl(
        kind,
        parts.hosts,
        parts.username,
        parts.password,
        database,
        path if kind == "sentinel" else "",
        options,
        f"/{unquote(path)}" if kind == "unix" else "",
    )


def connect(url: RedisUrl, *, connections: int | None = None, read_timeout: float | None = None) -> Any:
    """A client, not yet connected, that repeats nothing by itself: a `Redis` or a `RedisCluster`.

    `read_timeout` is the URL's `timeout` unless it is given.
    """
    settings = _settings(url, connections, read_timeout)
    if url.kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in url.hosts]
        return RedisCluster(startup_nodes=nodes, retry=Retry(NoBackoff(), url.options.max_redirects), **settings)
    return _client(url, None, settings)


Connected = Callable[[Any], Awaitable[None]]
"""Called with each new connection, before it is used."""


def pool_of(
    url: RedisUrl, address: tuple[str, int] | None, connections: int, connected: Connected | None = None
) -> Any:
    """Up to so many connections to one server, which repeat nothing: the server at `address`, or, of a URL that is
    not a Cluster's, the one that it names (with Sentinel: the primary of the moment)."""

    async def greet(connection: Any) -> None:
        await connection.on_connect()
        if connected is not None:
            await connected(connection)

    settings = _settings(url, connections, None)
    return _client(url, address, settings | {"redis_connect_func": greet}).connection_pool


def client_of(url: RedisUrl, address: tuple[str, int], connections: int) -> Any:
    """A client of the server at `address` alone, which repeats nothing."""
    return _client(url, address, _settings(url, connections, None))


def _client(url: RedisUrl, address: tuple[str, int] | None, settings: dict[str, Any]) -> Any:
    if url.kind == "sentinel":
        return _watchers(url).master_for(url.service, connection_pool_class=_WatchedPool, retry=_never(), **settings)
    if url.kind == "unix":
        return Redis(unix_socket_path=url.socket, db=url.database, retry=_never(), **settings)
    host, port = address or url.hosts[0]
    return Redis(host=host, port=port, db=url.database, retry=_never(), **settings)


def _settings(url: RedisUrl, connections: int | None, read_timeout: float | None) -> dict[str, Any]:
    options = url.options
    common: dict[str, Any] = {
        "username": url.username,
        "password": url.password,
        "socket_timeout": read_timeout if read_timeout is not None else options.timeout,
        "socket_connect_timeout": options.connect_timeout,
        "socket_keepalive": True,
        "socket_keepalive_options": _KEEPALIVE,
        "health_check_interval": 0,
        "max_connections": connections if connections is not None else options.pool,
        "protocol": 2,
    }
    if options.tls:
        common |= {"ssl": True, "ssl_ca_certs": options.ca_file}
    return common


class _WatchedPool(SentinelConnectionPool):
    """Closes the connections to the sentinels too, which the library forgets."""

    async def disconnect(self, inuse_connections: bool = True) -> None:
        await super().disconnect(inuse_connections)
        if inuse_connections:
            for sentinel in self.sentinel_manager.sentinels:
                await sentinel.aclose()


def _watchers(url: RedisUrl) -> Sentinel:
    options = url.options
    credentials = {"username": options.sentinel_user, "password": options.sentinel_password}
    return Sentinel(  # type: ignore[no-untyped-call]
        list(url.hosts),
        sentinel_kwargs={k: v for k, v in credentials.items() if v is not None}
        | {"socket_timeout": options.connect_timeout, "socket_connect_timeout": options.connect_timeout}
        | {"retry": _never(), "protocol": 2},
    )


def _never() -> Retry:
    return Retry(NoBackoff(), 0)


def reason_of(error: BaseException) -> str:
    """`error` in words. Of a service that no sentinel knows the library shows its own objects behind them."""
    return str(error).partition(" : <")[0] or type(error).__name__


_KEEPALIVE: Final = {
    getattr(socket, name): value
    for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
    if hasattr(socket, name)
}


CUT: Final = (OSError, RuntimeError, AttributeError)
"""What is raised, besides the library's own errors, of a connection that is closed while it is used: uvloop says
RuntimeError, and redis-py AttributeError where another task closes it."""


@contextlib.contextmanager
def translated(*, wrote: bool = False) -> Iterator[None]:
    """Turn the client's errors into ours. `wrote`: what fails may have been done (OutcomeUnknown)."""
    try:
        yield
    except (redis_errors.BusyLoadingError, redis_errors.ReadOnlyError, redis_errors.AuthenticationError) as error:
        raise StoreUnavailable(f"the server refuses for now: {error}") from error
    except (redis_errors.ConnectionError, redis_errors.TimeoutError, *CUT) as error:
        end_if_cancelled()
        kind = OutcomeUnknown if wrote else StoreUnavailable
        raise kind(f"the server does not answer: {error or type(error).__name__}") from error
    except redis_errors.RedisError as error:
        raise StoreUnavailable(f"the server refuses: {error}") from error
