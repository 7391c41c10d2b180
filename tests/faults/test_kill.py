"""The server is killed again and again under load, and nothing that it receipted is lost."""

import asyncio
import os
import random
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest
import websockets
from tests.support.client import StompClient
from tests.support.deadline import DEADLINE, SCALE
from tests.support.frames import Frame
from tests.support.history import (
    Confirmed,
    Enough,
    Event,
    Fault,
    Got,
    History,
    Lost,
    Owner,
    Receipted,
    Refused,
    Sent,
    Subscribed,
    check,
)
from tests.support.server import Server

pytestmark = [pytest.mark.fault, pytest.mark.timeout(120 * SCALE)]

SENDERS = 200
MESSAGES = 50
PIPELINE = 4
USERS = 28
KILLS = 5
MODES = ("auto", "client", "client-individual")
BROKEN = (OSError, EOFError, ConnectionError, websockets.WebSocketException, AssertionError)


def owners_of(user: int) -> list[Owner]:
    """Every third user has no device, every third two, every third one beside the shared cursor."""
    name = f"user-{user}"
    return [[(name, "")], [(name, "phone"), (name, "desk")], [(name, ""), (name, "phone")]][user % 3]


class Run:
    """One server, its clients, and what they saw."""

    def __init__(self, server: Server, seed: int) -> None:
        self.server = server
        self.random = random.Random(seed)
        self.history = History(noted=self._noted)
        self.up = asyncio.Event()
        self.up.set()
        self.complete = asyncio.Event()
        self.senders_left = SENDERS
        self.receipts = 0
        self._thresholds: list[tuple[int, asyncio.Event]] = []
        self._subscriptions = 0
        self._owner: dict[str, Owner] = {}
        self._wanted: dict[str, set[str]] = defaultdict(set)
        self._missing: dict[Owner, set[str]] = {owner: set() for user in range(USERS) for owner in owners_of(user)}
        self._had: dict[Owner, set[str]] = defaultdict(set)
        self._receiver: dict[str, str] = {}

    @property
    def owners(self) -> list[Owner]:
        return list(self._missing)

    def missing(self) -> int:
        """How many receipted messages somebody still waits for."""
        return sum(map(len, self._missing.values()))

    def reached(self, receipts: int) -> asyncio.Event:
        """Set once so many receipts have come."""
        event = asyncio.Event()
        self._thresholds.append((receipts, event))
        return event

    def sender_done(self) -> None:
        self.senders_left -= 1
        self._look()

    def _noted(self, event: Event) -> None:
        match event:
            case Sent():
                self._receiver[event.key] = event.receiver
            case Receipted(key):
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
                self._had[owner].add(event.key)
                self._missing[owner].discard(event.key)
                self._look()
            case _:
                pass

    def _look(self) -> None:
        if not self.senders_left and not self.missing():
            self.complete.set()

    # ── clients ───────────────────────────────────────────────────────────────────────────────────────

    async def with_client(
        self, login: str, device: str, pongs: bool, work: Callable[[StompClient], Coroutine[None, None, None]]
    ) -> None:
        """Do `work` on one connection, for as long as that lasts."""
        await self.up.wait()
        try:
            client = await StompClient.connect(self.server, login, device=device or None, pongs=pongs)
        except BROKEN:
            # The server went down meanwhile. Let whoever killed it say so before the next attempt.
            await asyncio.sleep(0)
            return
        try:
            await work(client)
        except (OSError, ConnectionError):
            self.history.note(Lost(login))
        finally:
            await client.cut()

    async def send(self, number: int) -> None:
        """One sender: its messages in order, what has no receipt again under the same key."""
        rng = random.Random(self.random.random())
        name = f"sender-{number}"
        todo = deque(
            Sent(name, f"user-{rng.randrange(USERS)}", seq, f"{name}-{seq}", rng.randbytes(20).hex())
            for seq in range(MESSAGES)
        )
        flying: dict[str, Sent] = {}

        async def work(client: StompClient) -> None:
            await client.subscribe("/user/queue/errors", id="errors")
            for sent in flying.values():
                await self._put(client, sent)
            while todo or flying:
                while todo and len(flying) < PIPELINE:
                    sent = todo.popleft()
                    flying[sent.key] = sent
                    await self._put(client, sent)
                frame = await client.frame(lambda frame: True)
                key = frame.headers["receipt-id"]
                flying.pop(key, None)
                self.history.note(Receipted(key) if frame.command == "RECEIPT" else Refused(key))

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
            if way == "disconnect":
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
            if known and self.pongs:
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


async def hurt(run: Run) -> None:
    """Kill the server at random counts of receipts, while messages are in flight."""
    total = SENDERS * MESSAGES
    for at in sorted(run.random.sample(range(total // 20, total * 9 // 10), KILLS)):
        await run.reached(at).wait()
        run.up.clear()
        run.history.note(Fault("kill"))
        await asyncio.to_thread(run.server.restart)
        run.up.set()


@pytest.mark.parametrize("seed", [int(os.environ.get("POSTROOM_TEST_SEED", "1"))])
async def test_what_was_receipted_arrives_through_any_number_of_kills(
    make_server: Callable[..., Server], tmp_path: Path, seed: int
) -> None:
    server = make_server('[log]\nlevel = "warning"\n')
    run = Run(server, seed)
    receivers: list[asyncio.Task[None]] = []
    try:
        async with asyncio.timeout(60 * SCALE), asyncio.TaskGroup() as tasks:
            for owner in run.owners:
                # The shared cursor is shared by two tabs.
                receivers += [tasks.create_task(run.receive(owner, tab)) for tab in range(1 if owner[1] else 2)]
            tasks.create_task(hurt(run))
            for number in range(SENDERS):
                tasks.create_task(run.send(number))
            await run.complete.wait()
            for receiver in receivers:
                receiver.cancel()
    except TimeoutError:
        run.history.note(Lost("the test: time is up"))
    wrong = check(
        run.history,
        run.owners,
        Enough(
            receipted=SENDERS * MESSAGES,
            redelivered=100,
            reconnected=SENDERS,
            faults=KILLS,
            faults_in_flight=KILLS,
            unknown_share=0.0,
        ),
    )
    if wrong:
        run.history.dump(tmp_path / "history.jsonl")
    assert wrong[:20] == [], f"{len(wrong)} in all; see {tmp_path}/history.jsonl\n{server.output()}"
    assert "Traceback" not in server.output(100_000), server.output(100)
