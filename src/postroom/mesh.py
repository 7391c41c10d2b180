"""What makes a node one of a cluster: membership, routing, interest, and the comparison of logs."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

import structlog
from msgspec import Struct

from postroom.backplane.base import Backplane, Subject
from postroom.clock import Clock
from postroom.directory import Directory
from postroom.envelope import Ask, Item
from postroom.errors import StoreUnavailable
from postroom.hub import Hub
from postroom.identity import Lease, NodeId, UserName
from postroom.interest import Interest
from postroom.mailbox import Mailbox
from postroom.metrics import Metrics
from postroom.peering import ALL, Peering, inbox
from postroom.position import LogKey
from postroom.relay import Relay
from postroom.roaming import ITEMS, Roaming
from postroom.scheme import scheme_of
from postroom.store.base import DirectoryStore

_log = structlog.get_logger("postroom.mesh")

_DEBOUNCE_SECONDS: Final = 0.05
_ANSWER_SECONDS: Final = 1.0
_NAMESAKE_BEATS: Final = 3
"""How many heart-beats of a namesake may be lost."""


class MeshTimes(Struct, frozen=True):
    """How long leases live and how often things are done, in seconds."""

    lease: float = 10.0
    renew: float = 2.0
    heartbeat: float = 2.0
    reconcile: float = 60.0
    route_cache: float = 1.0


class Mesh:
    """This node's part in the cluster. `receive` takes what other nodes publish; `fenced` closes all sessions."""

    def __init__(
        self,
        node: NodeId,
        *,
        routing: str,
        times: MeshTimes,
        backplane: Backplane,
        store: DirectoryStore,
        hub: Hub[Any],
        mailbox: Mailbox,
        metrics: Metrics,
        clock: Clock,
        receive: Callable[[Subject, Lease, Item], None],
        fenced: Callable[[], None],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        quiet_seconds: float,
    ) -> None:
        self._node = node
        self._times = times
        self._mailbox = mailbox
        self._metrics = metrics
        self.directory = Directory(
            store,
            node,
            lease_seconds=times.lease,
            renew_seconds=times.renew,
            cache_seconds=times.route_cache,
            patience=times.heartbeat * _NAMESAKE_BEATS,
            clock=clock,
        )
        self._peering = Peering(
            backplane,
            heartbeat_seconds=times.heartbeat,
            routing=routing,
            clock=clock,
            metrics=metrics,
            highest=lambda: mailbox.highest,
            seen=mailbox.saw,
            receive=self._take,
            missed=self._missed,
            interrupted=self._interrupted,
            replaced=self.directory.replaced,
            follows=lambda: self.interest.subjects,
            answer=self._answer,
        )
        self._receive = receive
        self.roaming = Roaming(self._peering, self.directory, spawn=spawn, quiet_seconds=quiet_seconds)
        scheme = scheme_of(routing, self.directory)
        self.relay = Relay(scheme, self._peering, self.directory, metrics)
        self.interest = Interest(
            backplane, self.directory, scheme, self._peering, hub.users, lambda: self._missed(None)
        )
        self.directory.joined = self._joined
        self.directory.ended = self._ended
        self.directory.fenced = fenced
        self._everything = False
        self._suspect: set[Subject] = set()
        self._wake = asyncio.Event()

    async def join(self) -> None:
        """Take a lease, and want what every node follows. Raises StoreUnavailable."""
        await self.directory.join()
        self.interest.follow(ALL)
        self.interest.follow(inbox(self._node))

    def work(self) -> Mapping[str, Coroutine[Any, Any, None]]:
        """What runs for as long as the node lives, by name."""
        return {
            "lease": self.directory.run(),
            "backplane": self._peering.run_receiver(),
            "publisher": self._peering.run_sender(),
            "heart-beat": self._peering.run_heartbeat(),
            "look-ups": self.relay.run(),
            "interest": self.interest.run(),
            "reconciliation": self._reconcile(),
            "safety net": self._remind(),
        }

    async def leave(self) -> None:
        """Say goodbye: nobody is here any more."""
        await self._peering.flush()
        with contextlib.suppress(StoreUnavailable):  # then the lease ends by itself
            await self.interest.withdraw()
            await self.roaming.claims.withdraw()
            await self.directory.retire()

    def reasons_not_ready(self) -> list[str]:
        """Why this node should get no new clients."""
        reasons = []
        if self._peering.deaf:
            reasons.append("the backplane brings nothing: this node does not hear itself through it")
        if self.directory.overdue:
            reasons.append("the lease could not be renewed: other nodes hold this one for dead")
        return reasons

    def gauges(self) -> Mapping[str, float]:
        """What there is now."""
        return {
            "peers": len(self.directory.peers),
            "backplane_subjects": len(self.interest.subjects),
            "backplane_deaf": self._peering.deaf,
            "peers_of_other_routing": len(self._peering.disagreeing.intersection(self.directory.peers)),
        }

    async def followed_elsewhere(self, log: LogKey, owner: str) -> bool:
        """Whether a subscription on another node delivers `log` to `owner`; also where that cannot be found out."""
        if log.user is None:
            return False
        nodes = (await self.directory.locate([log.user]))[log.user]
        said = await self._peering.ask(
            set(nodes), lambda number: Ask(number, log.user, log.name, owner), _ANSWER_SECONDS
        )
        return said is not False

    def _answer(self, ask: Ask) -> bool:
        log = LogKey(UserName(ask.user) if ask.user is not None else None, ask.name)
        return self._mailbox.delivers(log, ask.owner)

    def _take(self, subject: Subject, sender: Lease, item: Item) -> None:
        if type(item) in ITEMS:
            self.roaming.receive(sender, item)
        else:
            self._receive(subject, sender, item)

    # ── membership ────────────────────────────────────────────────────────────────────────────────────

    def _joined(self, lease: Lease) -> None:
        _log.info("joined", node=lease.node, incarnation=lease.incarnation, peers=len(self.directory.peers))
        self._peering.joined(lease)
        self.interest.rejoined()
        self.roaming.rejoined()
        self._missed(None)

    def _ended(self, peer: Lease) -> None:
        # It may have died between an append and its tell, and no counter shows that.
        self._peering.left(peer)
        self.roaming.ended(peer)
        self._missed(None)

    def _interrupted(self) -> None:
        # Where the store is the backplane too it may have failed over, and forgotten who came last.
        self.interest.reenter()
        self._missed(None)

    # ── comparing logs ────────────────────────────────────────────────────────────────────────────────

    def _missed(self, subject: Subject | None) -> None:
        if subject is None or subject in (ALL, inbox(self._node)):
            self._everything = True
        else:
            self._suspect.add(subject)
        self._wake.set()

    async def _remind(self) -> None:
        while True:
            await asyncio.sleep(self._times.reconcile * random.uniform(0.5, 1.5))
            self._interrupted()

    async def _reconcile(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(_DEBOUNCE_SECONDS)
            self._wake.clear()
            everything, self._everything = self._everything, False
            suspect, self._suspect = self._suspect, set()
            self._metrics.reconciliations += 1
            try:
                await self._mailbox.reconcile(None if everything else self._logs_of(suspect))
            except StoreUnavailable as error:
                _log.warning("logs could not be compared; trying again", reason=str(error))
                self._everything = self._everything or everything
                self._suspect |= suspect
                self._wake.set()
                await asyncio.sleep(random.uniform(0.3, 1.0))

    def _logs_of(self, subjects: set[Subject]) -> list[LogKey]:
        found = []
        for log in self._mailbox.followed_logs:
            subject = f"topic.{log.name}" if log.user is None else f"user.{log.user}"
            if subject in subjects:
                found.append(log)
        return found
