"""Where a message goes, and nothing else."""

import asyncio
from typing import Any, Final

from msgspec import Struct

from postroom.backplane.base import Subject
from postroom.channel import Channel, ChannelRegistry, Retention
from postroom.destination import AppPath, Destination, Destinations, Topic, UserQueue
from postroom.envelope import Cast, Item, Miss, Tell
from postroom.errors import PostroomError
from postroom.hub import Hub, user_key
from postroom.identity import Lease, UserName
from postroom.mailbox import Mailbox, Stored
from postroom.message import Message, StoredMessage
from postroom.metrics import Metrics
from postroom.peering import inbox
from postroom.position import LogKey
from postroom.relay import TOPICS, Relay
from postroom.store.base import Append, Appended

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
    """Sends messages to the hub, to the mailbox and to other nodes, as their destination's channel says.

    `relay` is None where there are no other nodes.
    """

    __slots__ = ("_channels", "_destinations", "_hub", "_mailbox", "_metrics", "_relay", "_routes")

    def __init__(
        self,
        destinations: Destinations,
        channels: ChannelRegistry,
        hub: Hub[Any],
        mailbox: Mailbox,
        metrics: Metrics,
        relay: Relay | None = None,
    ) -> None:
        self._relay = relay
        self._destinations = destinations
        self._channels = channels
        self._hub = hub
        self._mailbox = mailbox
        self._metrics = metrics
        self._routes: dict[str, Route] = {}
        mailbox.on_stored(self._stored)

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

    def route(
        self, route: Route, message: Message, stored: Stored, *, key: str | None = None, tied: bool = False
    ) -> bool:
        """Send `message`. True: it is done. False: it is being stored, and `stored` is called with the outcome.

        `tied`: it is stored together with the one before it, which was sent in the same turn of the loop, or neither.
        """
        log = route.log
        if log is None:
            self._metrics.delivered += self._hub.publish(route.key, message)
            if self._relay is not None:
                self._relay.cast(message)
            return True
        mailbox = self._mailbox
        mailbox.append(Append(log, message, route.retention, mailbox.highest, mailbox.followed(log), key, tied), stored)
        return False

    async def send(self, route: Route, message: Message) -> None:
        """As `route`: stored on return, where there is a log. Raises Refused, or StoreUnavailable."""
        outcome: asyncio.Future[Appended | PostroomError] = asyncio.get_running_loop().create_future()
        if not self.route(route, message, outcome.set_result):
            answer = await asyncio.shield(outcome)
            if not isinstance(answer, Appended):
                raise answer

    def _stored(self, log: LogKey, stored: StoredMessage, at: Appended) -> None:
        if log.user is None:
            self._publish_to_patterns(stored)
        if self._relay is not None:
            self._relay.tell(log, stored, at)

    def _publish_to_patterns(self, stored: StoredMessage) -> None:
        # Subscribers of the topic itself follow its log; those by pattern hear of it here.
        came = stored.message
        message = Message(came.destination, came.sender, came.headers, came.body, stored.id)
        self._metrics.delivered += self._hub.publish_to_patterns(came.destination.name, message)

    # ── from other nodes ──────────────────────────────────────────────────────────────────────────────

    def receive(self, subject: Subject, sender: Lease, item: Item) -> None:
        """What another node published."""
        match item:
            case Tell():
                self._receive_tell(subject, item)
            case Cast():
                self._receive_cast(subject, sender, item)
            case Miss():
                if self._relay is not None:
                    self._relay.missed(item)
            case _:
                pass

    def _receive_tell(self, subject: Subject, tell: Tell) -> None:
        log = tell.log
        self._mailbox.saw(tell.offset)
        if subject == TOPICS:
            if tell.body is not None:
                self._publish_to_patterns(tell.stored)
        elif not self._mailbox.followed(log):
            self._metrics.backplane_wasted += 1
        elif tell.body is None:
            self._mailbox.heard(log, tell.position)
        else:
            self._mailbox.announce(log, tell.stored)

    def _receive_cast(self, subject: Subject, sender: Lease, cast: Cast) -> None:
        message = cast.message
        if subject == TOPICS:
            self._metrics.delivered += self._hub.publish_to_patterns(cast.name, message)
        elif cast.user is None:
            self._metrics.delivered += self._hub.publish_to_key(cast.name, message)
        elif (user := UserName(cast.user)) in self._hub.users:
            self._metrics.delivered += self._hub.publish(user_key(user, cast.name), message)
        elif self._relay is not None:
            self._metrics.backplane_wasted += 1
            if subject == inbox(self._relay.node):
                self._relay.bounce(sender.node, cast)


def _history(channel: Channel) -> Retention:
    kept = channel.retention
    return Retention(
        seconds=kept.seconds,
        confirmed_seconds=kept.seconds,
        max_messages=channel.history,
        max_bytes=kept.max_bytes,
        on_overflow="drop-oldest",
    )
