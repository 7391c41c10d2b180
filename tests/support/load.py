"""Many senders with receipts, receivers that come and go, and a history of what they all saw."""

import asyncio
import random
import time
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine

import websockets
from tests.support.client import StompClient
from tests.support.deadline import DEADLINE
from tests.support.frames import Frame
from tests.support.history import (
    Confirmed,
    Event,
    Gone,
    Got,
    History,
    Lost,
    Owner,
    Receipted,
    Refused,
    Sent,
    Subscribed,
)
from tests.support.server import Server

MODES = ("auto", "client", "client-individual")
BROKEN = (OSError, EOFError, ConnectionError, websockets.WebSocketException, AssertionError)


def owners_of(user: int) -> list[Owner]:
    """Every third user has no device, every third two, every third one beside the shared cursor."""
    name = f"user-{user}"
    return [[(name, "")], [(name, "phone"), (name, "desk")], [(name, ""), (name, "phone")]][user % 3]


class Resumption:
    """How delivery came back after a fault, seconds: the first message, and the last one that was waited for then."""

    def __init__(self, waiting: set[tuple[Owner, str]]) -> None:
        self._began = time.monotonic()
        self._waiting = waiting
        self.first: float | None = None
        self.all = 0.0

    def arrived(self, owner: Owner, key: str) -> None:
        """A message came to `owner`."""
        seconds = time.monotonic() - self._began
        if self.first is None:
            self.first = seconds
        self.gone(owner, key)

    def gone(self, owner: Owner, key: str) -> None:
        """A message came, or will never come."""
        if (owner, key) in self._waiting:
            self._waiting.remove((owner, key))
            self.all = time.monotonic() - self._began

    def __str__(self) -> str:
        if self.first is None:
            return "all had come by then"
        return f"{self.first:.2f} s ({self.all:.2f} s for all that was receipted)"


class Run:
    """One server or cluster, its clients, and what they saw: `senders` send `messages` each to `users`.

    A sender has `pipeline` messages without a receipt, and waits `pause` seconds, give or take, before the next.
    What is refused because the store is away is sent again under the same key: only with one at a time does that keep
    the order. `clients` says how they connect. Without `pings` the server cannot ask what its clients have: what
    `ack:auto` confirms is not known then.
    """

    def __init__(
        self,
        server: Server,
        seed: int,
        *,
        senders: int,
        messages: int,
        users: int,
        pipeline: int = 4,
        pause: float = 0.0,
        pings: bool = True,
        clients: type[StompClient] = StompClient,
    ) -> None:
        self.server = server
        self.pipeline, self.pause, self.pings = pipeline, pause, pings
        self.clients = clients
        self.in_time = True
        self.resumptions: list[Resumption] = []
        self.senders, self.messages, self.users = senders, messages, users
        self.random = random.Random(seed)
        self.history = History(noted=self._noted)
        self.up = asyncio.Event()
        self.up.set()
        self.complete = asyncio.Event()
        self.senders_left = senders
        self.receipts = 0
        self._thresholds: list[tuple[int, asyncio.Event]] = []
        self._subscriptions = 0
        self._flying: set[str] = set()
        self._sent = asyncio.Event()
        self._owner: dict[str, Owner] = {}
        self._wanted: dict[str, set[str]] = defaultdict(set)
        self._missing: dict[Owner, set[str]] = {owner: set() for user in range(users) for owner in owners_of(user)}
        self._had: dict[Owner, set[str]] = defaultdict(set)
        self._receiver: dict[str, str] = {}

    @property
    def owners(self) -> list[Owner]:
        return list(self._missing)

    def missing(self) -> int:
        """How many receipted messages somebody still waits for."""
        return sum(map(len, self._missing.values()))

    def heal(self) -> None:
        """The fault is over, or the server may begin to get over it: from now on is measured what that takes."""
        waiting = {(owner, key) for owner, missing in self._missing.items() for key in missing}
        self.resumptions.append(Resumption(waiting))

    def reached(self, receipts: int) -> asyncio.Event:
        """Set once so many receipts have come."""
        event = asyncio.Event()
        if self.receipts >= receipts:
            event.set()
        self._thresholds.append((receipts, event))
        return event

    async def flying(self) -> bool:
        """Return once a SEND waits for its RECEIPT; false where none will any more."""
        while self.senders_left and not self._flying:
            self._sent.clear()
            await self._sent.wait()
        return self.senders_left > 0

    def sender_done(self) -> None:
        self.senders_left -= 1
        self._sent.set()
        self._look()

    def _noted(self, event: Event) -> None:
        match event:
            case Sent():
                self._receiver[event.key] = event.receiver
                self._flying.add(event.key)
                self._sent.set()
            case Refused(key):
                self._flying.discard(key)
            case Receipted(key):
                self._flying.discard(key)
                self.receipts += 1
                for owner, missing in self._missing.items():
                    if owner[0] == self._receiver[key] and key not in self._had[owner]:
                        missing.add(key)
                for at, reached in self._thresholds:
                    if self.receipts >= at:
                        reached.set()
            case Subscribed(subscription, owner):
                self._owner[subscription] = owner
            case Got():
                owner = self._owner[event.subscription]
                for resumption in self.resumptions:
                    resumption.arrived(owner, event.key)
                self._had[owner].add(event.key)
                self._missing[owner].discard(event.key)
                self._look()
            case Gone(key):
                for owner, missing in self._missing.items():
                    missing.discard(key)
                    for resumption in self.resumptions:
                        resumption.gone(owner, key)
                self._look()
            case _:
                pass

    def _look(self) -> None:
        if not self.senders_left and not self.missing():
            self.complete.set()

    async def play(self, hurt: Coroutine[None, None, None], *, within: float) -> None:
        """Let everybody talk while `hurt` does its work, until all that was receipted has arrived, or not `in_time`."""
        receivers: list[asyncio.Task[None]] = []
        try:
            async with asyncio.timeout(within), asyncio.TaskGroup() as tasks:
                for owner in self.owners:
                    # The shared cursor is shared by two tabs.
                    receivers += [tasks.create_task(self.receive(owner, tab)) for tab in range(1 if owner[1] else 2)]
                trouble = tasks.create_task(hurt)
                for number in range(self.senders):
                    tasks.create_task(self.send(number))
                await self.complete.wait()
                await trouble
                for receiver in receivers:
                    receiver.cancel()
        except TimeoutError:
            self.in_time = False

    # ── clients ───────────────────────────────────────────────────────────────────────────────────────

    async def with_client(
        self, login: str, device: str, pongs: bool, work: Callable[[StompClient], Coroutine[None, None, None]]
    ) -> None:
        """Do `work` on one connection, for as long as that lasts."""
        await self.up.wait()
        try:
            client = await self.clients.connect(self.server, login, device=device or None, pongs=pongs)
        except BROKEN:
            # The server went down meanwhile. Let whoever killed it say so before the next attempt.
            await asyncio.sleep(0)
            return
        try:
            await work(client)
        except BROKEN:
            # Also when no answer came for long: whoever waits on a node that is paused connects anew.
            self.history.note(Lost(login))
        finally:
            await client.cut()

    async def send(self, number: int) -> None:
        """One sender: its messages in order, what has no receipt again under the same key."""
        rng = random.Random(self.random.random())
        name = f"sender-{number}"
        todo = deque(
            Sent(name, f"user-{rng.randrange(self.users)}", seq, f"{name}-{seq}", rng.randbytes(20).hex())
            for seq in range(self.messages)
        )
        flying: dict[str, Sent] = {}

        async def work(client: StompClient) -> None:
            await client.subscribe("/user/queue/errors", id="errors")
            for sent in flying.values():
                await self._put(client, sent)
            while todo or flying:
                while todo and len(flying) < self.pipeline:
                    sent = todo.popleft()
                    flying[sent.key] = sent
                    await self._put(client, sent)
                frame = await client.frame(lambda frame: True)
                key = frame.headers["receipt-id"]
                if frame.headers.get("code") == "store-unavailable":
                    await asyncio.sleep(0.2)
                    await self._put(client, flying[key])
                    continue
                flying.pop(key, None)
                self.history.note(Receipted(key) if frame.command == "RECEIPT" else Refused(key))
                if self.pause:
                    await asyncio.sleep(rng.uniform(0, 2 * self.pause))

        while todo or flying:
            await self.with_client(name, "", True, work)
        self.sender_done()

    async def _put(self, client: StompClient, sent: Sent) -> None:
        self.history.note(sent)
        headers = {"receipt": sent.key, "idempotency-key": sent.key, "key": sent.key}
        await client.send(f"/user/{sent.receiver}/queue/inbox", sent.body, receipt=False, headers=headers)

    async def receive(self, owner: Owner, tab: int) -> None:
        """One tab of one owner: it comes, takes some messages, and goes in one way or another."""
        rng = random.Random(self.random.random())
        while True:
            self._subscriptions += 1
            visit = _Visit(self, f"{owner[0]}/{owner[1]}/{tab}#{self._subscriptions}", owner, rng)
            await self.with_client(owner[0], owner[1], visit.pongs, visit.run)


class _Visit:
    """One connection of a receiver, with one subscription."""

    def __init__(self, run: Run, name: str, owner: Owner, rng: random.Random) -> None:
        self.history = run.history
        self.name = name
        self.owner = owner
        self.rng = rng
        self.ack = rng.choice(MODES)
        self.pongs = rng.random() < 0.85
        self.confirms = self.pongs and run.pings
        self.stays = rng.randint(5, 150)
        self.offsets: list[int] = []
        self.acknowledged: set[int] = set()

    async def run(self, client: StompClient) -> None:
        self.history.note(Subscribed(self.name, self.owner))
        try:
            await client.subscribe("/user/queue/inbox", id=self.name, ack=self.ack, receipt=False)
            for _ in range(self.stays):
                message = await client.message(within=10 * DEADLINE)
                self.note(message)
                await self.prove(client, message)
            way = self.rng.choice(("cut", "disconnect", "lost"))
            if way == "disconnect" and self.pongs:  # who answers nothing would wait for the end of the closing
                await client.disconnect()
            elif way == "lost":
                raise ConnectionError("we hang up")
        finally:
            # What came and was not looked at was received all the same, and its PING was answered.
            await client.cut()
            await client.ended()
            for frame in client.waiting():
                self.note(frame)

    def note(self, message: Frame) -> None:
        headers = message.headers
        self.offsets.append(int(headers["offset"]))
        self.history.note(
            Got(
                self.name,
                headers["key"],
                int(headers["epoch"]),
                int(headers["offset"]),
                int(headers["previous"]),
                headers.get("redelivered") == "true",
                message.text,
            )
        )

    async def prove(self, client: StompClient, message: Frame) -> None:
        """Acknowledge as the mode says, now and then with a receipt: then we know where the cursor stands."""
        known = self.rng.random() < 0.1
        offset = self.offsets[-1]
        if self.ack == "auto":
            if known and self.confirms:
                await client.confirmed()
                self.history.note(Confirmed(self.name, offset))
        elif self.ack == "client":
            if self.rng.random() < 0.3:
                await client.ack(message, receipt=known)
                if known:
                    self.history.note(Confirmed(self.name, offset))
        elif self.rng.random() < 0.95:
            await client.ack(message, receipt=known)
            self.acknowledged.add(offset)
            if known and (through := self.contiguous()):
                self.history.note(Confirmed(self.name, through))

    def contiguous(self) -> int:
        through = 0
        for offset in self.offsets:
            if offset not in self.acknowledged:
                break
            through = offset
        return through
