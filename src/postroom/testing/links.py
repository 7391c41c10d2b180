"""A link of its own to the servers of an engine's URL: a proxy before each, and the URL that leads through them."""

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Final, NamedTuple, Self

from postroom.testing.proxy import Address, Proxy

_HERE: Final = "127.0.0.1"

_PORTS: Final = {
    **dict.fromkeys(("redis", "rediss", "valkey", "valkeys", "redis+cluster"), 6379),
    **dict.fromkeys(("postgresql", "postgres"), 5432),
    **dict.fromkeys(("nats", "tls"), 4222),
    "redis+sentinel": 26379,
    "amqp": 5672,
    "amqps": 5671,
    "kafka": 9092,
}
"""Of URLs that name none. An engine that is not among them is given one."""

_URL: Final = re.compile(r"(?P<before>[^:/?]+://(?:[^/?]*@)?)(?P<places>[^/?@]*)(?P<after>.*)", re.DOTALL)
_PLACE: Final = re.compile(r"(?P<host>\[[^\]]+\]|[^:]+)(?::(?P<port>\d+))?")


class NoLink(Exception):
    """There is nothing to put a proxy before; says why, and what would help."""


class Way(NamedTuple):
    """A proxy: where it listens, and for which server."""

    at: Address
    target: Address


def servers_of(url: str) -> Sequence[Address]:
    """The servers that `url` names, in its order. Raises NoLink where it names none."""
    found = _URL.fullmatch(url)
    if found is None or not found["places"]:
        raise NoLink("the URL names no host: there is no connection to hurt")
    scheme = url.partition(":")[0]
    return [address_of(place, _PORTS.get(scheme)) for place in found["places"].split(",")]


def address_of(place: str, port: int | None = None) -> Address:
    """`host:port` taken apart, with `port` where it names none. Raises NoLink."""
    found = _PLACE.fullmatch(place)
    if found is None or not (found["port"] or port):
        raise NoLink(f"{place!r} is no host:port, and a proxy must know its port")
    return found["host"].strip("[]"), int(found["port"] or port or 0)


def way_of(text: str) -> Way:
    """`LISTEN=SERVER` taken apart. Raises NoLink."""
    at, _, target = text.partition("=")
    return Way(address_of(at), address_of(target))


def led_through(url: str, addresses: Sequence[Address]) -> str:
    """`url` with these servers in place of its own."""
    found = _URL.fullmatch(url)
    assert found is not None
    places = (f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in addresses)
    return f"{found['before']}{','.join(places)}{found['after']}"


class Links:
    """A proxy for each server of `url`, or these `ways`; all that is done to them is done to each. See `Proxy`.

    Raises NoLink where the URL names no server.
    """

    def __init__(self, url: str, *, ways: Sequence[Way] = ()) -> None:
        chosen = ways or [Way((_HERE, 0), target) for target in servers_of(url)]
        self._url = url
        self._hosts = [way.at[0] for way in chosen]
        self._proxies = [Proxy(way.target, at=way.at, seed=1 + n) for n, way in enumerate(chosen)]
        self._stack = ExitStack()

    @property
    def url(self) -> str:
        """The URL that leads through the proxies, once they were started."""
        ports = (proxy.port for proxy in self._proxies)
        return led_through(self._url, [*zip(self._hosts, ports, strict=True)])

    def __enter__(self) -> Self:
        with self._stack:
            for proxy in self._proxies:
                self._stack.enter_context(proxy)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def cut(self) -> None:
        """See `Proxy.cut`."""
        self._each(Proxy.cut)

    def refuse(self) -> None:
        """See `Proxy.refuse`."""
        self._each(Proxy.refuse)

    def blackhole(self) -> None:
        """See `Proxy.blackhole`."""
        self._each(Proxy.blackhole)

    def mute(self) -> None:
        """See `Proxy.mute`."""
        self._each(Proxy.mute)

    def delay(self, seconds: float) -> None:
        """See `Proxy.delay`."""
        self._each(lambda proxy: proxy.delay(seconds))

    def scatter(self, seconds: float) -> None:
        """See `Proxy.scatter`."""
        self._each(lambda proxy: proxy.scatter(seconds))

    def heal(self) -> None:
        """See `Proxy.heal`."""
        self._each(Proxy.heal)

    def _each(self, what: Callable[[Proxy], None]) -> None:
        for proxy in self._proxies:
            what(proxy)
