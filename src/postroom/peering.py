"""This node's talk with the others: envelopes out and in, what is missing, and the canary."""

import asyncio
import random
from collections.abc import Callable
from typing import Any, Final

import structlog

from postroom.backplane.base import Backplane, Subject
from postroom.clock import Clock
from postroom.cluster.sequence import Incoming, Outgoing
from postroom.envelope import Answer, Ask, Beat, Envelope, Item, Unreadable, pack, seal, unseal
from postroom.errors import BackplaneUnavailable
from postroom.identity import Lease, NodeId
from postroom.metrics import Metrics

_log = structlog.get_logger("postroom.peering")

ALL: Final = Subject("all")
_MAX_PENDING: Final = 16 * 1024 * 1024
"""How much may wait for the backplane, and so come at once to one that listens: engines cut who is far behind."""

_ENVELOPE: Final = 1024 * 1024
"""Larger envelopes are split, unless one item alone is larger."""

_MAX_NAMED: Final = 20_000
_MISSED_CANARIES: Final = 3

Receive = Callable[[Subject, Lease, Item], None]
"""Takes an item that another node published to a subject."""


def inbox(node: NodeId) -> Subject:
    """The subject that only `node` follows."""
    return Subject(f"node.{node}")


class Peering:
    """Sends and receives items. Anything sent may be lost.

    `missed` is called with the subject on which something was, `interrupted` where it may have been any, `replaced`
    where a later start of a node with this one's name speaks.
    """

    def __init__(
        self,
        backplane: Backplane,
        *,
        heartbeat_seconds: float,
        routing: str,
        clock: Clock,
        metrics: Metrics,
        highest: Callable[[], int],
        seen: Callable[[int], None],
        receive: Receive,
        missed: Callable[[Subject], None],
        interrupted: Callable[[], None],
        replaced: Callable[[], None],
        follows: Callable[[], set[Subject]],
        answer: Callable[[Ask], bool],
    ) -> None:
        self._backplane = backplane
        self._heartbeat_seconds = heartbeat_seconds
        self._routing = routing
        self._clock = clock
        self._metrics = metrics
        self._highest, self._seen = highest, seen
        self._receive, self._missed, self._follows, self._answer = receive, missed, follows, answer
        self._told_of_interruption, self._replaced = interrupted, replaced
        self._incarnations: set[int] = set()
        self._own: Lease | None = None
        self._outgoing, self._incoming = Outgoing(), Incoming()
        self._pending: dict[Subject, list[bytes]] = {}
        self._pending_bytes = 0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._echoed: dict[Subject, float] = {}
        self._connected = 0.0
        self._asked: dict[int, tuple[asyncio.Future[bool], int]] = {}
        self._questions = 0
        self._reachable = True
        self.deaf = False
        self.disagreeing: set[Lease] = set()
        """Peers that find users by another scheme than this node; some may have ended."""

    def joined(self, own: Lease) -> None:
        """This node has a new incarnation: it counts from 1 again, and is not its older self."""
        again = self._own is not None
        self._own = own
        self._incarnations.add(own.incarnation)
        self._outgoing = Outgoing()
        if again:
            self._outgoing.next(ALL)  # a hole: what its older self counted last may be lost, and nobody names it
        self._echoed = dict.fromkeys((ALL, inbox(own.node)), self._clock.monotonic())

    def left(self, peer: Lease) -> None:
        """A peer's lease has ended."""
        self._incoming.forget_peer(peer.node, peer.incarnation)
        self.disagreeing.discard(peer)

    def unfollowed(self, subject: Subject) -> None:
        """This node follows `subject` no longer."""
        self._incoming.forget_subject(subject)

    # ── out ───────────────────────────────────────────────────────────────────────────────────────────

    def send(self, subject: Subject, packed: bytes) -> None:
        """Publish an item, packed, with all else that this turn of the loop sends to `subject`. Never blocks."""
        if self._pending_bytes + len(packed) > _MAX_PENDING:
            self._metrics.backplane_dropped += 1
            self._outgoing.next(subject)  # a hole, which its followers will see
            return
        items = self._pending.get(subject)
        if items is None:
            self._pending[subject] = [packed]
            self._idle.clear()
            self._wake.set()
        else:
            items.append(packed)
        self._pending_bytes += len(packed)

    async def run_sender(self) -> None:
        """Publish what waits, for as long as the node lives."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._pending:
                # What came while the last batch was on its way travels together.
                pending, self._pending, self._pending_bytes = self._pending, {}, 0
                await self._publish(pending)
            self._idle.set()

    async def flush(self) -> None:
        """Return once everything handed in so far has been published, or is lost."""
        await self._idle.wait()

    async def _publish(self, pending: dict[Subject, list[bytes]]) -> None:
        own = self._own
        if own is None:
            return
        batch: list[tuple[Subject, bytes]] = []
        for subject, items in pending.items():
            for group in self._split(items):
                counter = self._outgoing.next(subject)
                batch.append((subject, seal(own.node, own.incarnation, counter, self._highest(), group)))
        try:
            await self._backplane.publish(batch)
        except BackplaneUnavailable as error:
            self._metrics.backplane_failures += 1
            if self._reachable:
                _log.error("the backplane cannot be reached: other nodes hear nothing from here", reason=str(error))
            self._reachable = False
            return
        if not self._reachable:
            _log.warning("the backplane can be reached again")
            self._reachable = True
        self._metrics.backplane_published += len(batch)
        self._metrics.backplane_items_published += sum(map(len, pending.values()))

    def _split(self, items: list[bytes]) -> list[list[bytes]]:
        bound = min(_ENVELOPE, self._backplane.traits.max_payload_bytes - 256)
        if sum(map(len, items)) <= bound:
            return [items]
        groups: list[list[bytes]] = [[]]
        size = 0
        for item in items:
            if groups[-1] and size + len(item) > bound:
                groups.append([])
                size = 0
            groups[-1].append(item)
            size += len(item)
        return groups

    def fits(self, packed: bytes) -> bool:
        """Whether an item of this size can travel at all."""
        return len(packed) <= self._backplane.traits.max_payload_bytes - 256

    # ── in ────────────────────────────────────────────────────────────────────────────────────────────

    async def run_receiver(self) -> None:
        """Receive for as long as the node lives."""
        await self._backplane.run(self._received, self._interrupted)

    def _received(self, subject: Subject, payload: bytes) -> None:
        metrics = self._metrics
        metrics.backplane_received += 1
        metrics.backplane_bytes_received += len(payload)
        try:
            envelope = unseal(payload)
        except Unreadable as error:
            metrics.backplane_unreadable += 1
            _log.warning("the backplane brought something that cannot be read", subject=subject, reason=str(error))
            return
        own = self._own
        if own is None:
            return
        if envelope.node == own.node:
            if envelope.incarnation == own.incarnation:
                self._echo(subject, envelope)
            elif envelope.incarnation not in self._incarnations:
                self._hear_namesake(subject, envelope.incarnation > own.incarnation)
            return
        sender = Lease(NodeId(envelope.node), envelope.incarnation)
        self._seen(envelope.highest)
        if self._incoming.heard(subject, envelope.node, envelope.incarnation, envelope.counter):
            self._hole(subject)
        for item in envelope.items:
            match item:
                case Beat():
                    self._beat(sender, item)
                case Ask():
                    self.send(inbox(sender.node), pack(Answer(item.number, self._answer(item))))
                case Answer():
                    self._answered(item)
                case _:
                    metrics.backplane_items_received += 1
                    self._receive(subject, sender, item)

    def _hear_namesake(self, subject: Subject, later: bool) -> None:
        # Of two with one name the one that was started later stays: it may have taken the place of one that hung.
        if later:
            self._replaced()
        else:
            self._missed(subject)

    def _interrupted(self) -> None:
        self._metrics.backplane_interruptions += 1
        self._connected = self._clock.monotonic()
        self._told_of_interruption()

    def _hole(self, subject: Subject) -> None:
        self._metrics.backplane_holes += 1
        self._missed(subject)

    def _beat(self, sender: Lease, beat: Beat) -> None:
        for subject in self._incoming.named(sender.node, sender.incarnation, beat.counters, self._follows()):
            self._hole(Subject(subject))
        if beat.routing and beat.routing != self._routing and sender not in self.disagreeing:
            self.disagreeing.add(sender)
            _log.error(
                "a node has another routing: what it sends may reach users here late or not at all",
                node=sender.node,
                routing=beat.routing,
                here=self._routing,
            )

    # ── heart-beat and canary ─────────────────────────────────────────────────────────────────────────

    async def run_heartbeat(self) -> None:
        """Say how far this node has counted, and listen whether it hears itself, for as long as it lives."""
        while True:
            await asyncio.sleep(self._heartbeat_seconds * random.uniform(0.9, 1.1))
            own = self._own
            if own is None:
                continue
            await self._listen_to_canary()  # of the last time: this one's is not back yet
            counters = self._outgoing.beat()
            if len(counters) > _MAX_NAMED:  # the full comparison once a minute is their safety net
                counters = dict(list(counters.items())[-_MAX_NAMED:])
            self.send(ALL, pack(Beat(counters, self._routing)))
            self.send(inbox(own.node), pack(Beat({})))

    def _echo(self, subject: Subject, envelope: Envelope) -> None:
        if any(type(item) is Beat for item in envelope.items):
            self._echoed[subject] = self._clock.monotonic()
            if self.deaf and self._silence() < self._heartbeat_seconds * _MISSED_CANARIES:
                self.deaf = False
                _log.warning("this node hears itself again through the backplane")

    def _silence(self) -> float:
        return self._clock.monotonic() - min(self._echoed.values(), default=0.0)

    async def _listen_to_canary(self) -> None:
        silent, patience = self._silence(), self._heartbeat_seconds * (_MISSED_CANARIES + 0.5)
        if silent < patience:
            return
        self._metrics.backplane_canaries_missed += 1
        if not self.deaf:
            self.deaf = True
            _log.error("this node does not hear itself through the backplane", seconds=round(silent, 1))
        # A new connection is given as long as the old one was.
        if self._clock.monotonic() - self._connected >= patience:
            self._connected = self._clock.monotonic()
            await self._backplane.reconnect()

    # ── questions ─────────────────────────────────────────────────────────────────────────────────────

    async def ask(self, nodes: set[NodeId], make: Callable[[int], Ask], seconds: float) -> bool | None:
        """Ask `nodes`: True once one says yes, False once all say no, None if not all answer in time."""
        if not nodes:
            return False
        self._questions += 1
        number, answered = self._questions, asyncio.get_running_loop().create_future()
        self._asked[number] = (answered, len(nodes))
        try:
            packed = pack(make(number))
            for node in nodes:
                self.send(inbox(node), packed)
            async with asyncio.timeout(seconds):
                return bool(await answered)
        except TimeoutError:
            return None
        finally:
            del self._asked[number]

    def _answered(self, answer: Answer) -> None:
        waiting: tuple[asyncio.Future[Any], int] | None = self._asked.get(answer.number)
        if waiting is None or waiting[0].done():
            return
        future, left = waiting
        if answer.yes:
            future.set_result(True)
        elif left == 1:
            future.set_result(False)
        else:
            self._asked[answer.number] = (future, left - 1)
