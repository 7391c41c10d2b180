"""Who is listed in the directory, where the store's answers get lost or the store forgets."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
import structlog

from postroom.backplane.base import Subject
from postroom.backplane.memory import MemoryBackplane
from postroom.config import Settings
from postroom.config.settings import Cluster as ClusterSettings
from postroom.errors import OutcomeUnknown
from postroom.identity import Lease, UserName
from postroom.store.memory import MemoryStore
from postroom.testing.cluster import Cluster, Member

INBOX = "/user/queue/inbox"
BEN = UserName("ben")


class Forgetful(MemoryStore):
    """Does what it is told, and loses the answers to so many `leave`s."""

    losing = 0

    async def leave(self, lease: Lease, users: Sequence[UserName]) -> None:
        await super().leave(lease, users)
        if self.losing:
            self.losing -= 1
            raise OutcomeUnknown("the answer is lost")


class Interruptible(MemoryBackplane):
    """Its connection can be lost and back in one moment."""

    async def run(self, received: Callable[[Subject, bytes], None], interrupted: Callable[[], None]) -> None:
        self.interrupt = interrupted
        await super().run(received, interrupted)


class Stores:
    """One store and one backplane a node, over the same data."""

    def __init__(self) -> None:
        self.made: dict[str, Forgetful] = {}
        self.backplanes: dict[str, Interruptible] = {}

    def __call__(self, name: str) -> Forgetful:
        self.made[name] = Forgetful("memory:interest")
        return self.made[name]

    def backplane(self, name: str) -> Interruptible:
        self.backplanes[name] = Interruptible("memory:interest")
        return self.backplanes[name]


@pytest.fixture
def stores() -> Stores:
    return Stores()


@pytest.fixture
async def nodes(stores: Stores) -> AsyncIterator[Sequence[Member]]:
    settings = Settings(cluster=ClusterSettings(reconcile_seconds=3600))
    async with Cluster(2, settings=settings, store=stores, backplane=stores.backplane) as up:
        yield up


async def test_a_user_who_comes_back_while_it_is_not_known_whether_he_left_is_listed(
    nodes: Sequence[Member], stores: Stores
) -> None:
    store = stores.made["node-2"]
    async with nodes[0].connect("ann") as ann:
        async with nodes[1].connect("ben"):
            assert await store.locate([BEN]) != {BEN: ()}
            store.losing = 1
        async with asyncio.timeout(10):
            while store.losing:
                await asyncio.sleep(0)
        async with nodes[1].connect("ben") as ben:
            await ben.subscribe(INBOX)
            await ann.send("/user/ben/queue/inbox", b"hello")
            assert (await ben.message()).body == b"hello"


async def test_whoever_the_directory_forgot_is_listed_again_once_the_backplane_is_back(
    nodes: Sequence[Member], stores: Stores
) -> None:
    store = stores.made["node-2"]
    async with nodes[0].connect("ann") as ann, nodes[1].connect("ben") as ben:
        await ben.subscribe(INBOX)
        (lease,) = (await store.locate([BEN]))[BEN]
        await store.leave(lease, [BEN])
        stores.backplanes["node-2"].interrupt()
        async with asyncio.timeout(10):
            while not (await store.locate([BEN]))[BEN]:
                await asyncio.sleep(0)
        await ann.send("/user/ben/queue/inbox", b"hello")
        assert (await ben.message()).body == b"hello"


async def test_trouble_that_goes_on_is_said_once_and_its_end_too(nodes: Sequence[Member], stores: Stores) -> None:
    with structlog.testing.capture_logs() as logs:
        stores.made["node-2"].losing = 3
        async with nodes[1].connect("ben"):
            pass
        async with asyncio.timeout(10):
            while not any("told again" in entry["event"] for entry in logs):
                await asyncio.sleep(0)
    assert not stores.made["node-2"].losing
    assert sum("cannot be told" in entry["event"] for entry in logs) == 1
