"""Which live nodes hold sessions of a user: this node's lease, its entries, and what it asks."""

import asyncio
import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import structlog

from postroom.clock import Clock
from postroom.cluster.membership import Membership
from postroom.cluster.routes import Routes
from postroom.errors import LeaseLost, LeaseTaken, NodeReplaced, StoreUnavailable
from postroom.identity import Lease, NodeId, UserName
from postroom.store.base import DirectoryStore

_log = structlog.get_logger("postroom.directory")


class Directory:
    """The node's membership. `joined`, `ended` and `fenced` tell the node what changes.

    `fenced` is called when others held this node for dead while it lived, before it joins again: it must close
    its sessions first. A node whose lease another incarnation has taken waits `patience` seconds whether a namesake
    speaks (`replaced`); where none does it was a join of its own, done late, and the node takes a new lease.
    """

    def __init__(
        self,
        store: DirectoryStore,
        node: NodeId,
        *,
        lease_seconds: float,
        renew_seconds: float,
        cache_seconds: float,
        patience: float,
        clock: Clock,
    ) -> None:
        self._store = store
        self._patience = patience
        self._replaced = asyncio.Event()
        self.node = node
        self._lease_seconds, self._renew_seconds = lease_seconds, renew_seconds
        self._clock = clock
        self._membership = Membership()
        self._routes = Routes(cache_seconds)
        self._renewed = clock.monotonic()
        self._dead: set[tuple[UserName, Lease]] = set()
        self.joined: Callable[[Lease], None] = _nothing
        self.ended: Callable[[Lease], None] = _nothing
        self.fenced: Callable[[], None] = _nothing

    @property
    def lease(self) -> Lease | None:
        """This node's lease."""
        return self._membership.own

    @property
    def peers(self) -> Collection[Lease]:
        """The other live nodes."""
        return self._membership.peers

    @property
    def overdue(self) -> bool:
        """Whether the lease could not be renewed in time: others may hold this node for dead."""
        return self._clock.monotonic() - self._renewed > self._lease_seconds

    # ── life ──────────────────────────────────────────────────────────────────────────────────────────

    async def join(self) -> None:
        """Take a first lease. Raises StoreUnavailable."""
        lease, alive = await self._take()
        self._begin(lease, alive)

    def replaced(self) -> None:
        """A node of this one's name, started later, is at work: `run` ends."""
        self._replaced.set()

    async def run(self) -> None:
        """Renew the lease for as long as the node lives. Raises NodeReplaced."""
        while True:
            await self._pause(self._renew_seconds * random.uniform(0.8, 1.0))
            try:
                await self._renew()
                await self._sweep()
            except StoreUnavailable as error:
                _log.warning("the lease could not be renewed", reason=str(error))

    async def retire(self) -> None:
        """Give the lease up: the node goes. Raises StoreUnavailable."""
        if self.lease is not None:
            await self._store.retire(self.lease)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._replaced.wait()
        except TimeoutError:
            return
        raise NodeReplaced(f"another node with the id {self.node} was started later, and is at work: this one ends")

    async def _renew(self) -> None:
        lease = self.lease
        assert lease is not None
        asked = self._clock.monotonic()
        try:
            alive = await self._store.renew(lease, self._lease_seconds)
        except LeaseLost as error:
            _log.error("this node lost its lease", reason=str(error))
            if isinstance(error, LeaseTaken):
                await self._pause(self._patience)
            await self._rejoin()
        else:
            self._renewed = asked
            self._note(alive)

    async def _rejoin(self) -> None:
        lease, alive = await self._take()
        if self._membership.was_cut_off(alive):
            self.fenced()
        self._routes.clear()
        self._begin(lease, alive)

    async def _take(self) -> tuple[Lease, Sequence[Lease]]:
        """A new lease, and the live ones. Raises StoreUnavailable."""
        lease = await self._store.join(self.node, self._lease_seconds)
        try:
            return lease, await self._store.renew(lease, self._lease_seconds)
        except LeaseLost as error:
            # A join that had no answer was done late, after the one that had; or another node bears the name.
            raise StoreUnavailable(str(error)) from error

    def _begin(self, lease: Lease, alive: Iterable[Lease]) -> None:
        self._membership.joined(lease)
        self._renewed = self._clock.monotonic()
        self._note(alive)
        self.joined(lease)

    def _note(self, alive: Iterable[Lease]) -> None:
        ended = self._membership.renewed(alive)
        if ended:
            self._routes.clear()
        for lease in ended:
            _log.warning("a node is gone", node=lease.node, incarnation=lease.incarnation)
            self.ended(lease)

    # ── entries ───────────────────────────────────────────────────────────────────────────────────────

    async def enter(self, users: Sequence[UserName]) -> None:
        """These users are here. Raises StoreUnavailable."""
        if self.lease is not None:
            await self._store.enter(self.lease, users)

    async def leave(self, users: Sequence[UserName]) -> None:
        """These users are here no longer. Raises StoreUnavailable."""
        if self.lease is not None:
            await self._store.leave(self.lease, users)

    async def _sweep(self) -> None:
        # What dead nodes left behind, and a look-up met: it counts for nothing, but it takes room.
        dead, self._dead = self._dead, set()
        by_lease: dict[Lease, list[UserName]] = {}
        for user, lease in dead:
            by_lease.setdefault(lease, []).append(user)
        for lease, users in by_lease.items():
            await self._store.leave(lease, users)

    # ── look-ups ──────────────────────────────────────────────────────────────────────────────────────

    def live(self, user: UserName, listed: Iterable[Lease]) -> list[NodeId]:
        """The other live nodes among the entries of `user`."""
        found: list[NodeId] = []
        for lease in listed:
            if not self._membership.alive(lease):
                self._dead.add((user, lease))
            elif lease.node != self.node and lease.node not in found:
                found.append(lease.node)
        return found

    def cached(self, user: UserName) -> Sequence[NodeId] | None:
        """The user's other nodes, as of a moment ago; None: `locate` them. For transient messages only."""
        nodes = self._routes.get(user, self._clock.monotonic())
        return None if nodes is None else [NodeId(node) for node in nodes]

    async def locate(self, users: Sequence[UserName]) -> Mapping[UserName, Sequence[NodeId]]:
        """The users' other nodes, asked of the store. Raises StoreUnavailable."""
        entries = await self._store.locate(users)
        now = self._clock.monotonic()
        found = {user: self.live(user, entries.get(user, ())) for user in users}
        for user, nodes in found.items():
            self._routes.put(user, nodes, now)
        return found

    def missed(self, user: UserName) -> None:
        """The user was not where the cache said."""
        self._routes.drop(user)


def _nothing(*_: object) -> None:
    """Nobody wants to be told."""
