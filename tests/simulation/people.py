"""Clients: senders with pipelining and keys, receivers whose tabs and devices come and go, and requests that pull."""

import asyncio
import random
from collections import deque

from tests.simulation.world import IN_FLIGHT, Place, World, queue_of
from tests.support.history import Got, Handled, Lost, Owner, Receipted, Refused, Sent, Subscribed, Unsure

from postroom.errors import HandshakeRefused, StoreUnavailable
from postroom.identity import UserName
from postroom.stomp import Frame
from postroom.testing.cluster import Pipe

_PATIENCE = 4.0
_READY = "ready"
_MODES = ("auto", "client", "client-individual")


class Link:
    """One connection of one client, and what it has said that was not yet looked at."""

    def __init__(self, world: World, place: Place, rng: random.Random, *, answers_probes: bool = True) -> None:
        """Raises HandshakeRefused."""
        self.world, self.place = world, place
        self._rng = rng
        self._frames: deque[Frame] = deque()
        self._news = asyncio.Event()
        self.ended = False
        self.pipe = Pipe(place.member, self._heard, self._lost, answers_probes=answers_probes, latency=self._latency)
        place.member.pipes.append(self.pipe)

    def _latency(self) -> float:
        bounds = self.world.profile.latency if self._rng.random() < 0.97 else (0.0, 0.1)
        return self._rng.uniform(*bounds)

    async def log_in(self, user: str, device: str) -> bool:
        """CONNECT; whether it was answered in time."""
        login = {"login": user, **({"device": device} if device else {})}
        self.pipe.say("CONNECT", {"accept-version": "1.2", "host": "postroom", **login})
        frame = await self.frame(_PATIENCE)
        return frame is not None and frame.command == "CONNECTED"

    async def frame(self, within: float) -> Frame | None:
        """The next frame; None once it is late, or the connection is over."""
        try:
            async with asyncio.timeout(within):
                while not self._frames and not self.ended:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return None
        return self._frames.popleft() if self._frames else None

    async def over(self, within: float) -> None:
        """Wait until the connection is over, or the time is."""
        try:
            async with asyncio.timeout(within):
                while not self.ended:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pass

    def cut(self) -> None:
        """Both ends lose the connection."""
        self.pipe.cut()

    def _heard(self, frame: Frame) -> None:
        self._frames.append(frame)
        self._news.set()

    def _lost(self, code: int, reason: str) -> None:
        self.ended = True
        self._news.set()


async def connect(
    world: World,
    rng: random.Random,
    user: str,
    device: str = "",
    *,
    via: tuple[int, int] = (0, 3),
    answers_probes: bool = True,
) -> Link | None:
    """A connection to some node; None where that one does not answer."""
    place = rng.choice(world.places[slice(*via)])
    if not place.up or place.host.paused:
        await asyncio.sleep(rng.uniform(0.02, 0.2))
        return None
    try:
        link = Link(world, place, rng, answers_probes=answers_probes)
    except HandshakeRefused:
        await asyncio.sleep(rng.uniform(0.02, 0.2))
        return None
    if await link.log_in(user, device):
        return link
    link.cut()
    await asyncio.sleep(rng.uniform(0.02, 0.2))
    return None


# ── senders ───────────────────────────────────────────────────────────────────────────────────────────────


class Sender:
    """Sends its messages in order, some before the receipts of others; what has none again, under the same key.

    What is refused because the store does not answer is sent again too, later than what was sent behind it.
    """

    def __init__(self, world: World, number: int) -> None:
        self._world = world
        self._rng = rng = random.Random(world.rng.getrandbits(64))
        self._name = f"sender-{number}"
        self._pipeline = rng.choice([1, 3, 3])
        users = dict.fromkeys(user for user, _ in world.owners)
        self._todo = deque(
            Sent(self._name, rng.choice(list(users)), seq, f"{number}-{seq}", rng.randbytes(8).hex())
            for seq in range(world.profile.messages)
        )
        self._flying: dict[str, Sent] = {}
        self._said: list[str] = []  # what has no receipt on this connection, in order

    async def run(self) -> None:
        while self._todo or self._flying:
            link = await connect(self._world, self._rng, self._name, via=self._world.profile.via)
            if link is not None:
                await self._session(link)
                link.cut()
                self._world.note(Lost(self._name))
        self._world.senders_left -= 1
        self._world.look()

    async def _session(self, link: Link) -> None:
        rng, world = self._rng, self._world
        link.pipe.say("SUBSCRIBE", {"id": "errors", "destination": "/user/queue/errors"})
        self._said = []
        if world.profile.asks:
            self._said.append(_READY)
            own = {"id": "own", "destination": "/user/queue/own", "receipt": _READY}
            link.pipe.say("SUBSCRIBE", own)
        for sent in list(self._flying.values()):
            self._say(link, sent)
        lives = world.loop.time() + rng.uniform(*world.profile.lives)
        due = world.loop.time()
        while self._todo or self._flying:
            now = world.loop.time()
            if now >= lives:
                return
            if self._todo and len(self._flying) < self._pipeline and now >= due:
                sent = self._todo.popleft()
                self._flying[sent.key] = sent
                self._say(link, sent)
                due = now + rng.uniform(*world.profile.gap) * (rng.random() < 0.7)
                continue
            wait = due - now if self._todo and len(self._flying) < self._pipeline else _PATIENCE
            frame = await link.frame(min(wait, lives - now))
            if frame is not None:
                await self._heard(link, frame)
            elif link.ended or (self._flying and wait == _PATIENCE):
                return

    async def _heard(self, link: Link, frame: Frame) -> None:
        key = frame.headers["receipt-id"]
        if frame.command == "RECEIPT" and self._said[:1] != [key]:
            self._world.wrong.append(f"receipts: that of {key} came before that of {self._said[:1]}")
        self._said = [each for each in self._said if each != key]
        if key not in self._flying:
            return
        if frame.command == "RECEIPT":
            del self._flying[key]
            self._world.note(Receipted(key))
        elif frame.headers["code"] == "store-unavailable":
            self._world.counts["unknown outcomes"] += 1
            self._world.note(Unsure(key))
            await asyncio.sleep(0.1)
            self._say(link, self._flying[key])
        else:
            del self._flying[key]
            self._world.note(Refused(key))

    def _say(self, link: Link, sent: Sent) -> None:
        self._world.note(sent)
        self._said.append(sent.key)
        headers = {"receipt": sent.key, "idempotency-key": sent.key, "key": sent.key}
        destination = f"/user/{sent.receiver}{queue_of(sent.receiver)}"
        link.pipe.say("SEND", {"destination": destination, **headers}, sent.body.encode())


# ── receivers ─────────────────────────────────────────────────────────────────────────────────────────────


class Receiver:
    """One tab of one owner of a cursor: it comes, stays for a while, and goes in one way or another."""

    def __init__(self, world: World, owner: Owner, tab: int) -> None:
        self._world, self._owner = world, owner
        self._rng = random.Random(world.rng.getrandbits(64))
        self._name = f"{owner[0]}/{owner[1]}/{tab}"
        self._visits = 0
        self.known = asyncio.Event()

    async def run(self) -> None:
        world, rng = self._world, self._rng
        user, device = self._owner
        await asyncio.sleep(rng.uniform(*world.profile.start))
        while True:
            polite = world.profile.polite
            answers = polite or world.calm.is_set() or rng.random() < 0.85
            link = await connect(world, rng, user, device, via=world.profile.at, answers_probes=answers)
            if link is None:
                continue
            self._visits += 1
            visit = Visit(world, link, self._owner, f"{self._name}#{self._visits}", rng)
            if polite:
                await visit.polite(self.known)
            else:
                await visit.run(self.known)
            world.note(Lost(self._name))
            world.counts["visits"] += 1
            await asyncio.sleep(rng.uniform(*world.profile.away) * (1 if rng.random() < 0.8 else 4))


class Visit:
    """One connection with one subscription."""

    def __init__(self, world: World, link: Link, owner: Owner, name: str, rng: random.Random) -> None:
        self._world, self._link, self._owner, self._name, self._rng = world, link, owner, name, rng
        self._ack = rng.choice(_MODES)
        self._unhandled: dict[str, Frame] = {}
        self._last = (0, 0)

    async def _subscribe(self, known: asyncio.Event) -> None:
        destination = "/user" + queue_of(self._owner[0])
        self._world.note(Subscribed(self._name, self._owner, handles=self._ack != "auto"))
        headers = {"id": self._name, "destination": destination, "ack": self._ack, "receipt": "subscribed"}
        self._link.pipe._heard = lambda frame: self._heard(frame, known)
        self._link.pipe.say("SUBSCRIBE", headers)

    async def run(self, known: asyncio.Event) -> None:
        world, rng, link = self._world, self._rng, self._link
        await self._subscribe(known)
        if rng.random() < 0.1:
            world.loop.call_later(rng.uniform(0.0, 0.5), self._nap)
        await link.over(rng.uniform(*world.profile.visit))
        while world.calm.is_set() and not link.ended:
            # From now on nobody leaves: what does not come to whoever stays would never come.
            await link.over(60.0)
        if link.ended:
            return
        match rng.choice(["cut", "vanish", "close", "disconnect", "unsubscribe"]):
            case "cut":
                link.cut()
            case "vanish":
                link.pipe.vanish()
            case "close":
                link.pipe.hang_up()
            case "disconnect":
                link.pipe.say("DISCONNECT", {"receipt": "bye"})
                await link.over(0.3)
                link.cut()
            case _:
                self._unsubscribe()
                await asyncio.sleep(rng.uniform(0.01, 0.3))
                link.cut()

    def _unsubscribe(self) -> None:
        self._link.pipe.say("UNSUBSCRIBE", {"id": self._name})
        self._link.pipe._heard = lambda frame: None  # as client libraries do: there is no callback any more

    async def polite(self, known: asyncio.Event) -> None:
        """Stay until all that came is confirmed, and only then unsubscribe."""
        world, link = self._world, self._link
        await self._subscribe(known)
        await link.over(self._rng.uniform(*world.profile.visit))
        while world.calm.is_set() and not link.ended:
            await link.over(60.0)
        while not link.ended:
            stands = world.server.confirmed(world.log_of(self._owner[0]), self._owner[1])
            if (stands.epoch, stands.offset) >= self._last and not self._unhandled:
                self._unsubscribe()
                await asyncio.sleep(self._rng.uniform(0.0, 0.1))
                link.cut()
                return
            await asyncio.sleep(0.02)

    def _nap(self) -> None:
        pipe = self._link.pipe
        pipe.reading = False
        self._world.loop.call_later(self._rng.uniform(0.1, 2.0), setattr, pipe, "reading", True)

    # ── what comes ────────────────────────────────────────────────────────────────────────────────────

    def _heard(self, frame: Frame, known: asyncio.Event) -> None:
        if frame.command == "RECEIPT":
            known.set()
        elif frame.command == "MESSAGE":
            self._got(frame)

    def _got(self, frame: Frame) -> None:
        headers, world = frame.headers, self._world
        key = headers["key"]
        epoch, offset = int(headers["epoch"]), int(headers["offset"])
        self._last = max(self._last, (epoch, offset))
        redelivered, skipped = headers.get("redelivered") == "true", int(headers.get("skipped", "0"))
        body = frame.body.decode()
        world.note(Got(self._name, key, epoch, offset, int(headers["previous"]), redelivered, body, skipped))
        if skipped:
            world.told(self._owner, key, skipped)
        if self._ack == "auto":
            return
        self._unhandled[key] = frame
        if len(self._unhandled) > IN_FLIGHT:
            world.wrong.append(f"too many in flight: {len(self._unhandled)} in {self._name}")
        # Cumulative: the newest of all that has come by then. One by one: in any order.
        world.loop.call_later(self._rng.uniform(0.0, 0.3), self._handle, key)

    def _handle(self, key: str) -> None:
        frame = self._unhandled.get(key)
        if frame is None or self._link.pipe._client_gone:
            return
        done = [key]
        if self._ack == "client":
            done = list(self._unhandled)[: list(self._unhandled).index(key) + 1]
        for each in done:
            del self._unhandled[each]
            self._world.note(Handled(self._name, each))
        self._link.pipe.say("ACK", {"id": frame.headers["ack"]})


# ── requests ──────────────────────────────────────────────────────────────────────────────────────────────


class Puller:
    """Asks over HTTP, now and then, for what waits in the user's mailbox."""

    def __init__(self, world: World, user: str, number: int) -> None:
        self._world, self._user, self._number = world, user, number
        self._rng = random.Random(world.rng.getrandbits(64))
        self._pulls = 0

    async def run(self) -> None:
        world, rng = self._world, self._rng
        while not world.calm.is_set():
            await asyncio.sleep(rng.uniform(0.0, 0.4))
            place = rng.choice(world.places)
            if place.up and not place.host.paused:
                self._pulls += 1
                place.run(self._pull(place, f"pull/{self._user}/{self._number}#{self._pulls}"))

    async def _pull(self, place: Place, name: str) -> None:
        world, rng = self._world, self._rng
        world.note(Subscribed(name, (self._user, ""), marks=False))
        try:
            async with place.member.node.pull(UserName(self._user), queue_of(self._user)) as messages:
                await asyncio.sleep(rng.uniform(0.0, 0.1))
                if not messages:
                    return
                if rng.random() < 0.2 and not world.profile.polite:
                    raise _Gone
                world.counts["pulls"] += 1
                for each in messages:
                    at, headers = each.position, each.message.headers
                    body = each.message.body.decode()
                    world.note(Got(name, headers["key"], at.epoch, at.offset, each.previous, False, body))
        except (StoreUnavailable, _Gone):
            pass


class _Gone(Exception):
    """The client was gone before it was answered."""
