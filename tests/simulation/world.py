"""Three real nodes on hosts that can be hurt, their store and backplane behind a bad network, and what all saw."""

import asyncio
import contextlib
import contextvars
import random
from collections import defaultdict
from collections.abc import Collection, Coroutine, Sequence
from typing import Any

from tests.simulation import backplanes, stores
from tests.simulation.backplanes import FaultyBackplane
from tests.simulation.loop import Host, VirtualClock, VirtualLoop
from tests.simulation.profiles import Profile
from tests.simulation.stores import FaultyStore, Server
from tests.support.history import (
    Confirmed,
    Dropped,
    Event,
    Fault,
    Gone,
    Got,
    Handled,
    History,
    Owner,
    Receipted,
    Sent,
    Subscribed,
)

from postroom.auth import Authentication
from postroom.auth.dev import DevAuthenticator
from postroom.channel import Channel, Retention
from postroom.config.settings import Cluster, Delivery, Settings
from postroom.errors import StoreUnavailable
from postroom.identity import Lease, UserName
from postroom.node import Node
from postroom.position import LogKey
from postroom.store.base import Confirm
from postroom.testing.cluster import Member

IN_FLIGHT = 6
LEASE = 3.0
_SECONDS_LIVE = 15.0
"""So long after everything was mended something receipted may still be under way. The nodes' own safety net, the full
comparison of logs, would hide what the rules miss: it is not turned on."""


class Place:
    """One of three places for a node: its host, its way to store and backplane, what its application does."""

    def __init__(self, world: "World", number: int) -> None:
        self._world = world
        self.name = f"node-{number}"
        self.member = Member(self.name, self._make, world.tasks)
        self.host = Host(self.name)
        self.store: FaultyStore | None = None
        self.backplane: FaultyBackplane | None = None
        self.requests: dict[asyncio.Task[None], None] = {}
        self.busy = False
        self._going = False
        self._changing = asyncio.Lock()

    @property
    def up(self) -> bool:
        return self.member.up and not self._going

    def _make(self) -> Node:
        world = self._world
        rng = random.Random(world.rng.getrandbits(64))
        self.store = FaultyStore(world.server, rng)
        self.backplane = FaultyBackplane(world.url, world.odds, rng, world.context)
        return Node(
            world.settings(self.name),
            Authentication([DevAuthenticator()]),
            clock=world.clock,
            store=self.store,
            backplane=self.backplane,
        )

    async def start(self) -> None:
        """Start a node here, as soon as the store lets it."""
        async with self._changing:
            self._going = False
            while not self.up:
                self.host = Host(self.name)
                await self._world.tasks.create_task(self._start(), context=self.host.context())
                if not self.up:
                    await asyncio.sleep(0.2)
            self._world.trace(f"{self.name} is up")

    async def _start(self) -> None:
        with contextlib.suppress(StoreUnavailable):
            await self.member.start()

    async def crash(self) -> None:
        """Kill the process. What it has sent is on its way; it does nothing more, and nobody is told."""
        async with self._changing:
            self._going = True
            self._sever()
            await self._end_requests()
            await self.member.crash()
            await self._rest()

    def _sever(self) -> None:
        if self.store is not None:
            self.store.severed = True
        if self.backplane is not None:
            self.backplane.severed = True
        if self.host.paused:
            self.host.resume()

    async def stop(self) -> None:
        """SIGTERM: drain, then stop."""
        async with self._changing:
            await self._world.tasks.create_task(self.member.node.drain(), context=self.host.context())
            self._going = True
            await self._end_requests()
            await self.member.stop()
            self._sever()
            await self._rest()

    async def _end_requests(self) -> None:
        for request in list(self.requests):
            request.cancel()
            await asyncio.wait({request})

    async def _rest(self) -> None:
        await asyncio.sleep(0.001)  # whoever waits for the process learns of its end
        self.host.die()

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """A request of somebody to this node's application; it dies with the node."""
        task = self._world.tasks.create_task(work, context=self.member.context)
        self.requests[task] = None
        task.add_done_callback(lambda done: self.requests.pop(done, None))


class World:
    """One run: its nodes, its server, its history. `rng` decides everything."""

    def __init__(self, loop: VirtualLoop, tasks: asyncio.TaskGroup, seed: int, profile: Profile) -> None:
        self.rng = random.Random(seed)
        self.loop, self.tasks, self.profile = loop, tasks, profile
        self.context = contextvars.copy_context()
        self.url = f"memory:{profile.name}-{seed}"
        self.lines: list[str] = []
        self.server = Server(loop, self.trace)
        self.server.on_confirm = self._confirmed
        self.clock = VirtualClock(loop)
        self.odds = backplanes.Odds()
        self.history = History(noted=self._noted, now=lambda: (loop.time(), 0.0))
        self.counts: dict[str, int] = defaultdict(int)
        self.wrong: list[str] = []
        self.routing = self.rng.choice(["directory", "directory", "broadcast", "subject"])
        self.overflows = profile.overflow and self.rng.random() < 0.5
        self.fails_over = (
            profile.fails_over and not self.overflows and (not profile.overflow or self.rng.random() < 0.7)
        )
        self.complete = asyncio.Event()
        self.calm = asyncio.Event()
        self.senders_left = 0
        self.owners: dict[Owner, dict[str, None]] = {}
        self._owner: dict[str, Owner] = {}
        self._had: dict[Owner, dict[str, None]] = defaultdict(dict)
        self._receiver: dict[str, str] = {}
        self._handles: dict[str, bool] = {}
        self._latest: dict[Owner, str] = {}
        self._gone: set[str] = set()
        self.places = [Place(self, number) for number in (1, 2, 3)]

    # ── how nodes are set up ──────────────────────────────────────────────────────────────────────────

    def settings(self, name: str) -> Settings:
        kept = Retention(confirmed_seconds=2.0, max_messages=1000)
        small = Retention(confirmed_seconds=2.0, max_messages=4, on_overflow="drop-oldest")
        return Settings(
            node_id=name,
            store="memory:",
            routing=self.routing,  # type: ignore[arg-type]
            drain_seconds=0.5,
            delivery=Delivery(max_in_flight_messages=IN_FLIGHT, page_messages=3, probe_timeout_seconds=4.0),
            cluster=Cluster(
                lease_seconds=LEASE, renew_seconds=self.profile.renew, heartbeat_seconds=0.5, reconcile_seconds=80_000
            ),
            channels=(
                Channel("SMALL", "/user/*/queue/small", retention=small if self.overflows else kept),
                Channel("INBOX", "/user/*/queue/inbox", retention=kept),
            ),
        )

    # ── what is seen ──────────────────────────────────────────────────────────────────────────────────

    def trace(self, text: str) -> None:
        self.lines.append(f"{self.loop.time():.6f} {text}")

    def note(self, event: Event) -> None:
        self.history.note(event)

    def fault(self, name: str) -> None:
        self.counts[name] += 1
        self.note(Fault(name))

    def own(self, owner: Owner) -> None:
        """This owner's clients are to get everything."""
        self.owners[owner] = {}

    def _noted(self, event: Event) -> None:
        self.trace(repr(event))
        match event:
            case Sent(key=key, receiver=receiver):
                self._receiver[key] = receiver
            case Receipted(key):
                self.counts["receipts"] += 1
                for owner, missing in self.owners.items() if key not in self._gone else ():
                    if owner[0] == self._receiver[key] and key not in self._had[owner]:
                        missing[key] = None
            case Subscribed(subscription, owner, handles):
                self._owner[subscription], self._handles[subscription] = owner, handles
                self._latest[owner] = subscription
            case Got(subscription=subscription, key=key):
                self.counts["deliveries"] += 1
                self.counts["redeliveries"] += event.redelivered
                self.counts["skipped"] += event.skipped
                if not self._handles[subscription]:
                    self._has(self._owner[subscription], key)
            case Handled(subscription, key):
                self._has(self._owner[subscription], key)
            case Dropped(key, owner):
                self._has(owner, key)
            case Gone(key):
                self._gone.add(key)
                for owner in self.owners:
                    self._has(owner, key)
            case _:
                pass

    def _has(self, owner: Owner, key: str) -> None:
        self._had[owner][key] = None
        self.owners[owner].pop(key, None)
        self.look()

    def told(self, owner: Owner, key: str, skipped: int) -> None:
        """`owner` was told that so many messages before `key` are gone: they must be."""
        log = self.log_of(owner[0])
        entries = self.server.ledger.entries[log]
        number = next(entry.number for entry in entries if entry.key == key)
        for entry in entries:
            if number - skipped <= entry.number < number:
                if entry.position.offset > self.server.floor(log):
                    self.wrong.append(f"skipped: {entry.key} is still there, and {owner} was told that it is not")
                self.note(Dropped(entry.key, owner))

    def missing(self) -> int:
        return sum(map(len, self.owners.values()))

    def look(self) -> None:
        """Whether all is done."""
        if self.calm.is_set() and not self.senders_left and not self.missing():
            self.complete.set()

    def log_of(self, user: str) -> LogKey:
        return LogKey(UserName(user), queue_of(user))

    def _confirmed(self, batch: Sequence[Confirm]) -> None:
        for each in batch:
            latest = self._latest.get((str(each.log.user), each.owner))
            if latest is not None:
                stands = self.server.confirmed(each.log, each.owner)
                self.note(Confirmed(latest, stands.offset, stands.epoch))

    # ── the nodes ─────────────────────────────────────────────────────────────────────────────────────

    def fail_over(self) -> None:
        rng = self.rng
        known = len(self.server.ledger.lost)
        self.fault("fail-over")
        forgets = self.profile.forgets
        lost = 0 if forgets else rng.choice([0, 1, 3])
        self.server.fail_over(rng, lost=lost, behind=rng.choice([0.0, 0.5, 2.0]), forgets=forgets)
        for key in self.server.ledger.lost[known:]:
            self.counts["lost by the store"] += 1
            self.note(Gone(key))

    async def pause(self, place: Place, seconds: float) -> None:
        """Pause a node. If others held it for dead meanwhile, its clients must be sent away."""
        node, lease = place.member.node, lease_of(place)
        known = known_to(place)
        self.fault("pause")
        place.host.pause()
        pipes = [pipe for pipe in place.member.pipes if not pipe._client_gone]
        await asyncio.sleep(seconds)
        if not self._still(place, node):
            return
        place.host.resume()
        self.trace(f"{place.name} goes on")
        for _ in range(100):
            await asyncio.sleep(0.05)
            if not self._still(place, node) or lease_of(place) != lease:
                break
        if not self._still(place, node) or lease_of(place) == lease:
            return
        alive = self.server.alive()
        await asyncio.sleep(0.3)  # more than a goodbye needs to travel
        if self._still(place, node) and any(peer in known for peer in alive):
            self.counts["fenced"] += 1
            stayed = sum(not (pipe._broken or pipe._node_gone) for pipe in pipes)
            if stayed:
                self.wrong.append(f"not fenced: {stayed} clients stayed with {place.name}, whose lease had ended")

    def _still(self, place: Place, node: Node) -> bool:
        return place.up and place.member.node is node

    def heal(self) -> None:
        """Mend all but a deaf backplane: that is for the node to notice."""
        self.server.come_back()
        self.server.odds = stores.Odds()
        self.odds.lost = self.odds.twice = self.odds.late = 0.0
        for place in self.places:
            if place.host.paused and place.up:
                place.host.resume()
            if place.store is not None:
                place.store.cut_off = False
            if place.backplane is not None and place.backplane._state == "cut":
                place.backplane.heal()

    async def settle(self) -> None:
        """Wait until all that was receipted has arrived, and a little longer."""
        await asyncio.gather(*(place.start() for place in self.places if not place.up))
        self.trace("healed")
        self.calm.set()
        self.look()
        began = self.loop.time()
        try:
            async with asyncio.timeout(_SECONDS_LIVE):
                await self.complete.wait()
        except TimeoutError:
            missing = {owner: list(keys) for owner, keys in self.owners.items() if keys}
            self.wrong.append(f"too late: after {_SECONDS_LIVE} s without a fault {missing} had not come")
        self.counts["seconds to settle"] = round(self.loop.time() - began)
        await asyncio.sleep(2.0)


def lease_of(place: Place) -> Lease | None:
    mesh = place.member.node._mesh
    return mesh.directory.lease if mesh is not None else None


def known_to(place: Place) -> Collection[Lease]:
    mesh = place.member.node._mesh
    return mesh.directory.peers if mesh is not None else ()


def queue_of(user: str) -> str:
    return "/queue/small" if user == "small" else "/queue/inbox"
