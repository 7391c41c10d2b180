"""What waits for a look-up is bounded, however long the directory takes."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import cast

from tests.support.deadline import DEADLINE

from postroom.backplane.base import Subject
from postroom.destination import UserQueue
from postroom.directory import Directory
from postroom.identity import Lease, NodeId, UserName
from postroom.message import Message
from postroom.metrics import Metrics
from postroom.peering import Peering
from postroom.relay import Relay

BODY = b"x" * 1_000_000
MOST = 16


class Unknown:
    """A scheme that must ask for every user."""

    def interest(self, user: UserName) -> Sequence[Subject]:
        return ()

    def told(self, user: UserName, listed: Iterable[Lease]) -> Sequence[Subject]:
        return ()

    def cast(self, user: UserName) -> Sequence[Subject] | None:
        return None


class Slow:
    """A directory that answers once it may: everybody is on node-2."""

    node = NodeId("node-1")

    def __init__(self) -> None:
        self.may = asyncio.Event()

    async def locate(self, users: Sequence[UserName]) -> Mapping[UserName, Sequence[NodeId]]:
        await self.may.wait()
        return {user: [NodeId("node-2")] for user in users}


class Sent:
    """Where items go."""

    def __init__(self) -> None:
        self.items = 0

    def fits(self, packed: bytes) -> bool:
        return True

    def send(self, subject: Subject, packed: bytes) -> None:
        assert subject == "node.node-2"
        self.items += 1


@asynccontextmanager
async def running(relay: Relay) -> AsyncIterator[None]:
    task = asyncio.get_running_loop().create_task(relay.run())
    yield
    task.cancel()
    await asyncio.wait({task})


def send(relay: Relay, count: int) -> None:
    for n in range(count):
        user = UserName(f"user-{n % 3}")
        relay.cast(Message(UserQueue(user, "/queue/x"), None, {}, BODY, f"{n}"))


async def test_what_waits_for_a_look_up_takes_no_more_than_its_share_of_memory() -> None:
    directory, sent, metrics = Slow(), Sent(), Metrics()
    relay = Relay(Unknown(), cast("Peering", sent), cast("Directory", directory), metrics)
    async with running(relay), asyncio.timeout(DEADLINE):
        for again in (1, 2):
            send(relay, MOST + 10)
            await asyncio.sleep(0)
            assert metrics.backplane_dropped == 10 * again
            directory.may.set()
            while sent.items < MOST * again:
                await asyncio.sleep(0)
            directory.may.clear()
    assert sent.items == 2 * MOST
