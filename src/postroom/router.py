"""Where a message goes, and nothing else."""

from typing import Any, Final

from msgspec import Struct

from postroom.channel import Channel, ChannelRegistry, Retention
from postroom.destination import AppPath, Destination, Destinations, Topic, UserQueue
from postroom.hub import Hub, user_key
from postroom.mailbox import Mailbox, Stored
from postroom.message import Message, StoredMessage
from postroom.metrics import Metrics
from postroom.position import LogKey
from postroom.store.base import Append

_CACHE_SIZE: Final = 8192


class Route(Struct, frozen=True):
    """What is known about a destination before any message: its channel, its hub key, its log if it has one.

    `open` says that everybody may send.
    """

    destination: Destination
    channel: Channel
    key: str
    log: LogKey | None
    retention: Retention
    open: bool = True


class Router:
    """Sends messages to the hub or to the mailbox, as their destination's channel says."""

    __slots__ = ("_channels", "_destinations", "_hub", "_mailbox", "_metrics", "_routes")

    def __init__(
        self,
        destinations: Destinations,
        channels: ChannelRegistry,
        hub: Hub[Any],
        mailbox: Mailbox,
        metrics: Metrics,
    ) -> None:
        self._destinations = destinations
        self._channels = channels
        self._hub = hub
        self._mailbox = mailbox
        self._metrics = metrics
        self._routes: dict[str, Route] = {}
        mailbox.on_topic(self._appended_to_topic)

    def resolve(self, text: str) -> Route:
        """The route of a SEND's destination. Raises UnknownDestination."""
        route = self._routes.get(text)
        if route is None:
            route = self.route_of(self._destinations.to_send(text))
            if len(self._routes) >= _CACHE_SIZE:
                self._routes.clear()
            self._routes[text] = route
        return route

    def route_of(self, destination: Destination) -> Route:
        """The route of a destination that was parsed before."""
        channel = self._channels.of(destination)
        retention, open_ = channel.retention, channel.send.everyone
        match destination:
            case UserQueue(user, name):
                log = LogKey(user, name) if channel.durable else None
                return Route(destination, channel, user_key(user, name), log, retention, open_)
            case Topic(name):
                log = LogKey(None, name) if channel.history else None
                return Route(
                    destination, channel, name, log, _history(channel) if channel.history else retention, open_
                )
            case AppPath(name):
                return Route(destination, channel, name, None, retention, open_)

    def route(self, route: Route, message: Message, stored: Stored, *, key: str | None = None) -> bool:
        """Send `message`. True: it is done. False: it is being stored, and `stored` is called with the outcome."""
        log = route.log
        if log is None:
            self._metrics.delivered += self._hub.publish(route.key, message)
            return True
        mailbox = self._mailbox
        mailbox.append(Append(log, message, route.retention, mailbox.highest, mailbox.followed(log), key), stored)
        return False

    def _appended_to_topic(self, stored: StoredMessage) -> None:
        # Subscribers of the topic itself follow its log; those by pattern hear of it here.
        name = stored.message.destination.name
        message = Message(
            stored.message.destination,
            stored.message.sender,
            stored.message.headers,
            stored.message.body,
            stored.id,
        )
        self._metrics.delivered += self._hub.publish_to_patterns(name, message)


def _history(channel: Channel) -> Retention:
    kept = channel.retention
    return Retention(
        seconds=kept.seconds,
        confirmed_seconds=kept.seconds,
        max_messages=channel.history,
        max_bytes=kept.max_bytes,
        on_overflow="drop-oldest",
    )
