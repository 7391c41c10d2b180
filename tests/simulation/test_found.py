"""What the simulation has found, each in the shortest story that shows it."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest
from tests.simulation.loop import VirtualClock, VirtualLoop, run
from tests.simulation.stores import at_once

from postroom.channel import Retention
from postroom.destination import UserQueue
from postroom.directory import Directory
from postroom.errors import OutcomeUnknown, PostroomError, Refused, StoreUnavailable
from postroom.identity import Lease, NodeId, UserName
from postroom.mailbox.appender import Appender
from postroom.message import Message
from postroom.metrics import Metrics
from postroom.position import START, LogKey
from postroom.store.base import Append, Appended
from postroom.store.memory import MemoryStore
from postroom.testing.cluster import Client, Cluster

INBOX = "/user/queue/inbox"


def play(story: Coroutine[Any, Any, None]) -> VirtualLoop:
    """Let it happen on a virtual clock."""
    loops: list[VirtualLoop] = []

    async def told(loop: VirtualLoop) -> None:
        loops.append(loop)
        await story

    run(told, limit=600)
    return loops[0]


def item(user: str, body: bytes) -> Append:
    message = Message(UserQueue(UserName(user), "/queue/inbox"), UserName("ann"), {}, body)
    return Append(LogKey(UserName(user), "/queue/inbox"), message, Retention())


class Usurped(MemoryStore):
    """Its first join is done twice, as one that had no answer: the later one has the lease."""

    joins = 0

    async def join(self, node: NodeId, seconds: float) -> Lease:
        self.joins += 1
        lease = await super().join(node, seconds)
        if self.joins == self.usurped_at:
            await super().join(node, seconds)
        return lease

    usurped_at = 1


@pytest.mark.parametrize("at", [1, 2])
def test_a_join_that_was_done_twice_is_made_again_and_ends_no_node(at: int) -> None:
    async def story() -> None:
        clock = VirtualClock(asyncio.get_running_loop())
        store = Usurped(clock=clock)
        store.usurped_at = at
        directory = Directory(
            store, NodeId("n"), lease_seconds=3, renew_seconds=1, cache_seconds=1, patience=1, clock=clock
        )
        if at == 1:
            with pytest.raises(StoreUnavailable, match="another node took the name n"):
                await directory.join()
        await directory.join()
        lease = directory.lease
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(directory.run())
            assert lease is not None
            await store.retire(lease)
            while directory.lease == lease:
                await asyncio.sleep(0.1)
            running.cancel()

    play(story())


class Absent(MemoryStore):
    """Takes nothing while it is `away`, and lets whoever asks wait for that."""

    away = True

    async def append(self, batch: Sequence[Append]) -> Sequence[Appended | Refused]:
        await asyncio.sleep(1.0)
        if self.away:
            raise OutcomeUnknown("nobody knows what became of it")
        return await super().append(batch)


def test_what_waits_behind_a_message_that_could_not_be_stored_is_refused_with_it() -> None:
    async def story() -> None:
        store, outcomes = Absent(), dict[str, Appended | PostroomError]()
        appender = Appender(store, Metrics(), lambda item, at: None)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(appender.run())
            appender.append(item("ben", b"1"), lambda outcome: outcomes.update({"1": outcome}))
            await asyncio.sleep(0.5)
            appender.append(item("ben", b"2"), lambda outcome: outcomes.update({"2": outcome}))
            appender.append(item("cat", b"3"), lambda outcome: outcomes.update({"3": outcome}))
            await asyncio.sleep(0.6)
            store.away = False
            await appender.flush()
            running.cancel()
        assert isinstance(outcomes["1"], OutcomeUnknown)
        assert type(outcomes["2"]) is StoreUnavailable
        assert isinstance(outcomes["3"], Appended)
        page = await store.read(LogKey(UserName("ben"), "/queue/inbox"), START, 10, 1 << 20)
        assert not page.messages

    play(story())


def test_what_comes_behind_an_unsubscribe_is_not_confirmed_by_the_pong() -> None:
    async def story() -> None:
        async with Cluster(1) as [node], node.connect("ann") as ann, node.connect("ben") as ben:
            await ben.subscribe(INBOX)
            tokens: list[bytes] = []
            ben.pipe._asked = tokens.append  # type: ignore[assignment, method-assign]
            await ann.send("/user/ben/queue/inbox", b"hello")
            await ben.message()
            while not tokens:
                await asyncio.sleep(0.01)
            await ben.ask("UNSUBSCRIBE", {"id": "sub-0"})
            ben.pipe._receiver.proved(tokens[0])
            await asyncio.sleep(1.0)
            await ben.subscribe(INBOX)
            assert (await ben.message()).headers["redelivered"] == "true"

    play(story())


def test_a_client_that_promised_no_heart_beats_and_answers_no_probe_is_cut_soon_after_the_deadline() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        async with (
            Cluster(1, clock=VirtualClock(loop)) as [node],
            node.connect("ann") as ann,
            Client(node, "ben", answers_probes=False, within=100) as ben,
        ):
            await ben.subscribe(INBOX)
            await ann.send("/user/ben/queue/inbox", b"hello")
            await ben.message()
            began = loop.time()
            while node.node.gauges()["connections"] > 1:
                await asyncio.sleep(0.1)
            assert 29 < loop.time() - began < 40

    play(story())


def test_a_timer_of_a_node_that_is_over_begins_nothing() -> None:
    async def story() -> None:
        async with Cluster(1) as [node], node.connect("ann") as ann:
            await ann.send("/user/ben/queue/inbox", b"hello")
            async with Client(node, "ben") as ben:
                await ben.subscribe(INBOX, ack="client")
                message = await ben.message()
                ben.pipe.say("ACK", {"id": message.headers["ack"]})
                await asyncio.sleep(0.001)
                await node.crash()
                await asyncio.sleep(1.0)

    assert play(story()).unhandled == []


def test_a_log_that_was_trimmed_to_nothing_keeps_its_end_in_a_fail_over() -> None:
    store = MemoryStore()
    (appended,) = at_once(store.append([item("ben", b"1")]))
    assert isinstance(appended, Appended)
    log = LogKey(UserName("ben"), "/queue/inbox")
    at_once(store.trim(log, appended.position.offset))
    assert store.fail_over({log: 1}) == []
    (following,) = at_once(store.append([item("ben", b"2")]))
    assert isinstance(following, Appended)
    assert following.previous == appended.position.offset


class Hanging(MemoryStore):
    """`leave` takes a while; the first of each user has no answer where `lost`, and is done later than what follows."""

    def __init__(self, url: str, *, lost: bool) -> None:
        super().__init__(url)
        self._lost = lost

    async def leave(self, lease: Lease, users: Sequence[UserName]) -> None:
        if self._lost and "ben" in users:
            self._lost = False
            later = asyncio.get_running_loop().call_later(2.0, lambda: at_once(MemoryStore.leave(self, lease, users)))
            assert not later.cancelled()
            raise StoreUnavailable("the store does not answer")
        await asyncio.sleep(0.1)
        await super().leave(lease, users)


@pytest.mark.parametrize("lost", [False, True])
def test_who_comes_back_to_a_node_that_is_just_striking_them_off_is_found_by_the_others(lost: bool) -> None:
    async def story() -> None:
        url = f"memory:hanging-{lost}"
        async with (
            Cluster(2, store=lambda name: Hanging(url, lost=lost and name == "node-2")) as [one, two],
            one.connect("ann") as ann,
        ):
            async with two.connect("ben"):
                pass
            await asyncio.sleep(0.05)
            async with two.connect("ben") as ben:
                await ben.subscribe(INBOX)
                await asyncio.sleep(10.0)
                ben.within = 1.0
                await ann.send("/user/ben/queue/inbox", b"hello")
                assert (await ben.message()).body == b"hello"

    play(story())
