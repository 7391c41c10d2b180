"""What other nodes are told: of stored messages, and transient ones themselves."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from postroom.backplane.base import Subject
from postroom.destination import UserQueue
from postroom.directory import Directory
from postroom.envelope import Cast, Miss, cast, pack, tell
from postroom.errors import StoreUnavailable
from postroom.identity import NodeId, UserName
from postroom.message import Message, StoredMessage
from postroom.metrics import Metrics
from postroom.peering import ALL, Peering, inbox
from postroom.position import LogKey
from postroom.scheme import Scheme
from postroom.store.base import Appended

_log = structlog.get_logger("postroom.relay")

TOPICS: Final = Subject("topics")
"""Carries every topic's messages, for nodes whose clients subscribe by pattern."""

_MAX_WAITING: Final = 100_000
_MAX_WAITING_BYTES: Final = 16 * 1024 * 1024
"""How many transient messages may wait for a look-up, and how much they may take."""


def topic_subject(name: str) -> Subject:
    """The subject of one topic."""
    return Subject(f"topic.{name}")


class Relay:
    """Hands messages to the nodes that should have them. Never blocks, never raises: what is lost here is lost to a
    transient message; of a stored one the log is compared later."""

    def __init__(self, scheme: Scheme, peering: Peering, directory: Directory, metrics: Metrics) -> None:
        self._scheme = scheme
        self._peering = peering
        self._directory = directory
        self._metrics = metrics
        self._lost: dict[UserName, list[Cast]] = {}
        self._waiting = 0
        self._waiting_bytes = 0
        self._wake = asyncio.Event()

    @property
    def node(self) -> NodeId:
        """This node."""
        return self._directory.node

    def tell(self, log: LogKey, stored: StoredMessage, at: Appended) -> None:
        """`stored` was appended here, just now."""
        user = log.user
        subjects = self._scheme.told(user, at.listed) if user is not None else (topic_subject(log.name), TOPICS)
        if subjects:
            packed = pack(tell(stored, log))
            if not self._peering.fits(packed):
                packed = pack(tell(stored, log, body=False))
            for subject in subjects:
                self._peering.send(subject, packed)

    def cast(self, message: Message) -> None:
        """A transient message of a client here."""
        destination = message.destination
        if type(destination) is not UserQueue:
            packed = pack(cast(message))
            if self._fits(packed):
                self._peering.send(topic_subject(destination.name), packed)
                self._peering.send(TOPICS, packed)
            return
        user = destination.user
        # Behind a look-up that is under way everything waits: the order of a session's messages.
        subjects = self._scheme.cast(user) if user not in self._lost else None
        if subjects is None:
            self._locate(user, cast(message))
        elif subjects:
            packed = pack(cast(message))
            if self._fits(packed):
                for subject in subjects:
                    self._peering.send(subject, packed)

    def missed(self, miss: Miss) -> None:
        """A node that should hold the user does not: look once more."""
        item = miss.cast
        if item.user is None or item.hops > 1:
            return
        user = UserName(item.user)
        self._metrics.routes_missed += 1
        self._directory.missed(user)
        self._locate(user, item)

    def bounce(self, to: NodeId, item: Cast) -> None:
        """The user of `item` is not here: let its sender look again, once."""
        if item.hops == 0:
            hopped = Cast(item.user, item.name, item.sender, item.headers, item.body, item.id, 1)
            self._peering.send(inbox(to), pack(Miss(hopped)))

    async def run(self) -> None:
        """Look up the nodes of users, many at once, for as long as the node lives."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            users = list(self._lost)
            places = await self._places(users)
            for user in users:
                items = self._lost.pop(user)
                self._waiting -= len(items)
                self._waiting_bytes -= sum(len(item.body) for item in items)
                for item in items:
                    packed = pack(item)
                    if self._fits(packed):
                        for subject in places[user]:
                            self._peering.send(subject, packed)
            if self._lost:
                self._wake.set()

    async def _places(self, users: Sequence[UserName]) -> Mapping[UserName, Sequence[Subject]]:
        try:
            found = await self._directory.locate(users)
        except StoreUnavailable as error:
            # Without the directory nobody knows where they are: who has them will know.
            _log.debug("users could not be looked up: all nodes are told", reason=str(error))
            return dict.fromkeys(users, (ALL,))
        return {user: [inbox(node) for node in found[user]] for user in users}

    def _locate(self, user: UserName, item: Cast) -> None:
        if self._waiting >= _MAX_WAITING or self._waiting_bytes + len(item.body) > _MAX_WAITING_BYTES:
            self._metrics.backplane_dropped += 1
            return
        self._waiting += 1
        self._waiting_bytes += len(item.body)
        self._lost.setdefault(user, []).append(item)
        self._wake.set()

    def _fits(self, packed: bytes) -> bool:
        if self._peering.fits(packed):
            return True
        self._metrics.backplane_dropped += 1
        _log.warning("a transient message is too large for the backplane", bytes=len(packed))
        return False
