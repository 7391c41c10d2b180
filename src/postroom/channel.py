"""Channels: the named policies of destinations, and the registry that finds one."""

import math
from collections.abc import Iterable, Sequence
from typing import Final, Literal

from msgspec import Struct

from postroom.destination import AppPath, Destination, Pattern, Topic, UserQueue
from postroom.errors import ConfigurationError
from postroom.identity import Principal

DAY: Final = 86_400.0
_LONGEST: Final = 36_500 * DAY
_MOST: Final = 1 << 53
_CACHE_SIZE: Final = 4096


class Retention(Struct, frozen=True):
    """How long a log keeps what, and what happens when it is full.

    Unconfirmed messages stay for `seconds`, confirmed ones for `confirmed_seconds` (so that a user's slower
    tab can still read them). A log holds at most `max_messages` and `max_bytes` (bodies and headers); beyond
    that the sender is refused (`reject`) or the oldest go (`drop-oldest`, told to the receiver as `skipped`).
    """

    seconds: float = 7 * DAY
    confirmed_seconds: float = 600.0
    max_messages: int = 10_000
    max_bytes: int = 64 * 1024 * 1024
    on_overflow: Literal["reject", "drop-oldest"] = "reject"


class Permission(Struct, frozen=True):
    """Who may: `everyone` who has authenticated, or these users and roles; with none of all, the server alone."""

    everyone: bool = True
    users: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()

    def allows(self, principal: Principal) -> bool:
        """Whether `principal` may."""
        return self.everyone or principal.name in self.users or not self.roles.isdisjoint(principal.roles)


ANYONE: Final = Permission()
NOBODY: Final = Permission(everyone=False)


class Channel(Struct, frozen=True):
    """The policy of the destinations that `destination` covers.

    `destination` is an Ant-style pattern: `/user/*/topic/reply`, `/topic/{room}/**`. One that begins with `/user/`
    covers destinations of users and nothing else; any other, `/**` included, covers none of them. Destinations of
    handlers are covered as `/app/...`, whatever prefix clients use.

    `delivery` is `durable` (user destinations only, and their default: stored, then told) or `transient`.
    `history` keeps that many messages of a topic for `after-offset`. `proof` says what counts as receipt with
    `ack:auto`: `received` (the PONG) or `handled` (the PONG and two further frames of the client).
    """

    code: str
    destination: str
    description: str = ""
    delivery: Literal["transient", "durable"] | None = None
    retention: Retention = Retention()
    history: int = 0
    proof: Literal["received", "handled"] = "received"
    send: Permission = ANYONE
    subscribe: Permission = ANYONE

    @property
    def durable(self) -> bool:
        """Whether messages of user destinations go to a mailbox."""
        return _of_users(self) if self.delivery is None else self.delivery == "durable"


ERRORS_NAME: Final = "/queue/errors"

BUILT_IN: Final = (
    Channel(
        code="ERRORS",
        destination="/user/*" + ERRORS_NAME,
        description="What was refused; for the session that asked, never stored",
        delivery="transient",
        send=NOBODY,
    ),
    Channel(
        code="USER",
        destination="/user/*/**",
        description="Messages to one user; they wait in a mailbox until receipt is proven",
        delivery="durable",
    ),
    Channel(
        code="BROADCAST",
        destination="/**",
        description="Topics and queues; at most once to whoever listens now",
    ),
)


class ChannelRegistry:
    """The channels of a node: those given, in their order, then the built-in ones. The first match counts.

    A channel with the code USER or BROADCAST takes the place of the built-in one, behind all others. Raises
    ConfigurationError for a code used twice or a policy that contradicts itself.
    """

    __slots__ = ("_by_code", "_cache", "_patterns")

    def __init__(self, channels: Iterable[Channel] = ()) -> None:
        own = [*channels]
        last = [_replaced(built_in, own) for built_in in BUILT_IN[1:]]
        ordered = [BUILT_IN[0], *(channel for channel in own if not any(channel is one for one in last)), *last]
        self._by_code: dict[str, Channel] = {}
        self._patterns: list[tuple[Pattern, Channel]] = []
        self._cache: dict[tuple[type, str], Channel] = {}
        for channel in ordered:
            if channel.code in self._by_code:
                raise ConfigurationError(f"channel {channel.code}: the code is used twice; give each channel its own")
            check(channel)
            self._by_code[channel.code] = channel
            self._patterns.append((Pattern(channel.destination), channel))

    @property
    def channels(self) -> Sequence[Channel]:
        """All channels, in the order in which they are tried."""
        return [channel for _, channel in self._patterns]

    def by_code(self, code: str) -> Channel:
        """The channel with this code. Raises ConfigurationError, naming the codes that exist."""
        try:
            return self._by_code[code]
        except KeyError:
            known = ", ".join(sorted(self._by_code))
            raise ConfigurationError(f"no channel has the code {code!r}: there are {known}") from None

    def of(self, destination: Destination) -> Channel:
        """The channel whose pattern covers `destination` first."""
        key = (type(destination), destination.name)
        found = self._cache.get(key)
        if found is None:
            found = self._find(destination)
            if len(self._cache) >= _CACHE_SIZE:
                self._cache.clear()
            self._cache[key] = found
        return found

    def _find(self, destination: Destination) -> Channel:
        match destination:
            case UserQueue(name=name):
                text, of_users = "/user/*" + name, True
            case Topic(name=name):
                text, of_users = name, False
            case AppPath(name=name):
                text, of_users = "/app" + name, False
        return next(
            channel for pattern, channel in self._patterns if _of_users(channel) == of_users and pattern.matches(text)
        )


def _of_users(channel: Channel) -> bool:
    return channel.destination.startswith("/user/")


def _replaced(built_in: Channel, own: Sequence[Channel]) -> Channel:
    """What stands behind all other channels: it covers whatever they leave, so its pattern is fixed."""
    for channel in own:
        if channel.code == built_in.code:
            if channel.destination != built_in.destination:
                raise ConfigurationError(
                    f"channel {channel.code}: destination must be {built_in.destination!r}, as it takes the place of"
                    " the built-in channel; or give it another code"
                )
            return channel
    return built_in


def check(channel: Channel) -> None:
    """Raise ConfigurationError where the policy contradicts itself; one sentence."""
    name = f"channel {channel.code or '(without code)'}"
    if not channel.code:
        raise ConfigurationError(f"{name}: code is missing; give it one, such as CHAT")
    if not channel.destination.startswith("/"):
        raise ConfigurationError(f"{name}: destination {channel.destination!r} must start with '/'")
    parts = channel.destination.split("/")
    if "" in parts[1:]:
        raise ConfigurationError(f"{name}: destination {channel.destination!r} has an empty segment and covers nothing")
    of_users = parts[1] == "user"
    if of_users and (len(parts) < 4 or not (parts[2] == "*" or (parts[2][:1] == "{" and parts[2][-1:] == "}"))):
        raise ConfigurationError(
            f"{name}: destination {channel.destination!r} must cover every user: /user/*/topic/reply, for example"
        )
    if channel.durable and not of_users:
        raise ConfigurationError(
            f'{name}: delivery = "durable" is for user destinations (/user/*/...); a topic keeps a log with history = N'
        )
    if channel.history < 0:
        raise ConfigurationError(f"{name}: history must not be negative")
    if channel.history and of_users:
        raise ConfigurationError(f'{name}: history is for topics; a user destination is delivery = "durable"')
    if channel.proof == "handled" and not channel.durable:
        raise ConfigurationError(f'{name}: proof = "handled" needs delivery = "durable"')
    kept = channel.retention
    if not (math.isfinite(kept.seconds) and math.isfinite(kept.confirmed_seconds)) or kept.seconds > _LONGEST:
        raise ConfigurationError(f"{name}: retention is a number of seconds, at most a hundred years")
    if kept.seconds <= 0 or kept.confirmed_seconds < 0 or kept.max_messages < 1 or kept.max_bytes < 1:
        raise ConfigurationError(f"{name}: retention must be positive in time, messages and bytes")
    if max(kept.max_messages, kept.max_bytes, channel.history) > _MOST:
        raise ConfigurationError(f"{name}: retention and history are at most {_MOST}")
    if kept.confirmed_seconds > kept.seconds:
        raise ConfigurationError(
            f"{name}: retention: confirmed messages cannot stay longer ({kept.confirmed_seconds:g} s)"
            f" than unconfirmed ones ({kept.seconds:g} s)"
        )
