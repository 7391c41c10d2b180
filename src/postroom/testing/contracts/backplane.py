"""What every backplane must do. Subclass it, and give it a fixture `make`; `outage` and `linked` as well, if you can.

What a network does to single payloads (loses, doubles, reorders them) cannot be done to a TCP connection from outside
it; that a node copes is shown above the engines, by `tests/simulation`.
"""

# ruff: noqa: D102 (a test says its promise in its name)

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from postroom.backplane.base import Backplane, Subject
from postroom.errors import BackplaneUnavailable
from postroom.testing.contracts.faults import SECONDS, Link, Outage, given
from postroom.testing.contracts.marks import asynchronous

Make = Callable[[], Backplane]
"""Makes an engine, not yet running. Those that one test makes hear one another."""

_LARGEST: Final = 16 * 1024 * 1024


Linked = tuple[Make, Link]
"""Makes an engine that hears those of `make`, over a link of its own."""


class Peer:
    """A running engine, and what it heard."""

    def __init__(self, backplane: Backplane) -> None:
        self.backplane = backplane
        self.heard: list[tuple[str, bytes]] = []
        self.interrupted_at: list[int] = []
        self._changed = asyncio.Event()

    def received(self, subject: Subject, payload: bytes) -> None:
        """Take a payload."""
        self.heard.append((subject, payload))
        self._changed.set()

    def interrupted(self) -> None:
        """Take the news of a re-connection: so much had been heard before it."""
        self.interrupted_at.append(len(self.heard))
        self._changed.set()

    async def until(self, what: Callable[[], bool]) -> None:
        """Return once `what` is true of this peer."""
        async with asyncio.timeout(SECONDS):
            while not what():
                self._changed.clear()
                await self._changed.wait()

    def of(self, subject: str) -> list[bytes]:
        """The payloads of one subject, in order."""
        return [payload for name, payload in self.heard if name == subject]

    async def says_until(self, heard: Callable[[], bool], subject: str, payload: bytes = b"hello") -> None:
        """Publish, again and again, until it was heard; what fails meanwhile was lost."""
        async with asyncio.timeout(SECONDS):
            while not heard():
                with suppress(BackplaneUnavailable):
                    await self.backplane.publish([(Subject(subject), payload)])
                await asyncio.sleep(0.05)


@asynccontextmanager
async def running(backplane: Backplane) -> AsyncIterator[Peer]:
    """The engine, running."""
    peer = Peer(backplane)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(backplane.run(peer.received, peer.interrupted))
        try:
            yield peer
        finally:
            task.cancel()


Start = Callable[..., Awaitable[Peer]]
"""Starts an engine of `make`, or of the function that it is given."""


@asynchronous
class BackplaneContract:
    """The promises of `postroom.backplane.base.Backplane`."""

    @pytest.fixture
    def make(self) -> Make:
        """Give the kit your engine: override this."""
        pytest.fail("override the fixture `make`: it returns a function that makes an engine")

    @pytest.fixture
    def outage(self) -> Outage | None:
        """What hurts the server of `make`; None: the kit leaves that out."""
        return None

    @pytest.fixture
    def linked(self) -> Linked | None:
        """An engine whose connections can be hurt; None: the kit leaves that out."""
        return None

    @pytest_asyncio.fixture
    async def start(self, make: Make) -> AsyncIterator[Start]:
        """Starts one more engine that hears the others."""
        async with AsyncExitStack() as stack:

            async def start(make_one: Make = make) -> Peer:
                return await stack.enter_async_context(running(make_one()))

            yield start

    async def test_what_is_published_reaches_who_is_subscribed(self, start: Start) -> None:
        one, two = await start(), await start()
        await two.backplane.subscribe([Subject("node.two")])
        await one.backplane.subscribe([Subject("node.one")])
        await one.backplane.publish([(Subject("node.two"), b"hello")])
        await two.until(lambda: two.of("node.two") == [b"hello"])
        assert one.heard == []

    async def test_one_hears_oneself(self, start: Start) -> None:
        one = await start()
        await one.backplane.subscribe([Subject("all")])
        await one.backplane.publish([(Subject("all"), b"canary")])
        await one.until(lambda: one.of("all") == [b"canary"])

    async def test_a_payload_may_hold_any_byte(self, start: Start) -> None:
        one = await start()
        await one.backplane.subscribe([Subject("all")])
        payload = bytes(range(256)) * 300
        await one.backplane.publish([(Subject("all"), payload), (Subject("all"), b"")])
        await one.until(lambda: one.of("all") == [payload, b""])

    @pytest.mark.parametrize(
        "name", ["topic./topic/a b", "user.Zoë", "user.a*b?[c]", "user.a.b>c", "user.{x}", "u" * 500]
    )
    async def test_a_subject_may_hold_any_character(self, start: Start, name: str) -> None:
        one = await start()
        await one.backplane.subscribe([Subject(name)])
        await one.backplane.publish([(Subject(name + "x"), b"no"), (Subject(name), b"yes")])
        await one.until(lambda: one.heard == [(name, b"yes")])

    async def test_order_is_kept_by_publisher_and_subject(self, start: Start) -> None:
        one, two = await start(), await start()
        await two.backplane.subscribe([Subject("node.two"), Subject("all")])
        for n in range(50):
            batch = [(Subject(subject), b"%d.%d" % (n, k)) for k in range(4) for subject in ("node.two", "all")]
            await one.backplane.publish(batch)
        expected = [b"%d.%d" % (n, k) for n in range(50) for k in range(4)]
        await two.until(lambda: len(two.heard) == 400)
        assert two.of("node.two") == expected
        assert two.of("all") == expected

    async def test_many_subjects_are_subscribed_at_once(self, start: Start) -> None:
        one, two = await start(), await start()
        subjects = [Subject(f"user.{n}") for n in range(2000)]
        await two.backplane.subscribe(subjects)
        await one.backplane.publish([(subject, b"x") for subject in subjects])
        await two.until(lambda: len(two.heard) == 2000)

    async def test_twice_subscribed_is_heard_once(self, start: Start) -> None:
        one = await start()
        await one.backplane.subscribe([Subject("all")])
        await one.backplane.subscribe([Subject("all"), Subject("node.one")])
        await one.backplane.publish([(Subject("all"), b"1"), (Subject("node.one"), b"end")])
        await one.until(lambda: (("node.one", b"end")) in one.heard)
        assert one.of("all") == [b"1"]

    async def test_what_is_unsubscribed_comes_no_more(self, start: Start) -> None:
        one = await start()
        await one.backplane.subscribe([Subject("topic.a"), Subject("topic.b")])
        await one.backplane.unsubscribe([Subject("topic.a"), Subject("topic.never")])
        await asyncio.sleep(0.1)
        await one.backplane.publish([(Subject("topic.a"), b"no"), (Subject("topic.b"), b"yes")])
        await one.until(lambda: one.of("topic.b") == [b"yes"])
        assert one.of("topic.a") == []

    async def test_a_subject_may_be_subscribed_again(self, start: Start) -> None:
        one = await start()
        await one.backplane.subscribe([Subject("topic.a")])
        await one.backplane.unsubscribe([Subject("topic.a")])
        await one.backplane.subscribe([Subject("topic.a")])
        await one.backplane.publish([(Subject("topic.a"), b"yes")])
        await one.until(lambda: one.of("topic.a") == [b"yes"])

    async def test_the_largest_payload_arrives(self, start: Start) -> None:
        one = await start()
        await one.backplane.subscribe([Subject("all")])
        payload = os.urandom(min(_LARGEST, one.backplane.traits.max_payload_bytes))
        await one.backplane.publish([(Subject("all"), payload)])
        await one.until(lambda: len(one.heard) == 1)
        assert one.of("all") == [payload]

    async def test_publishers_at_once_keep_their_own_order(self, start: Start) -> None:
        one, two = await start(), await start()
        await two.backplane.subscribe([Subject("all")])

        async def publish(peer: Peer, number: int) -> None:
            for n in range(20):
                await peer.backplane.publish([(Subject("all"), b"%d:%d" % (number, n))])

        numbers = range(60)
        await asyncio.gather(*(publish((one, two)[number % 2], number) for number in numbers))
        await two.until(lambda: len(two.heard) == 1200)
        for number in numbers:
            mine = [payload for payload in two.of("all") if payload.startswith(b"%d:" % number)]
            assert mine == [b"%d:%d" % (number, n) for n in range(20)]

    async def test_a_cancelled_call_leaves_the_engine_whole(self, start: Start) -> None:
        one = await start()
        await one.backplane.subscribe([Subject("topic.a"), Subject("topic.b")])
        for turns in range(6):
            for call in (
                one.backplane.publish([(Subject("topic.c"), b"x")]),
                one.backplane.subscribe([Subject(f"topic.{turns}")]),
                one.backplane.unsubscribe([Subject("topic.b")]),
            ):
                task = asyncio.get_running_loop().create_task(call)
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await one.backplane.subscribe([Subject("topic.b")])
        await one.backplane.publish([(Subject("topic.a"), b"yes"), (Subject("topic.b"), b"yes")])
        await one.until(lambda: one.of("topic.a") == [b"yes"] and one.of("topic.b") == [b"yes"])
        assert one.interrupted_at == []

    async def test_nothing_is_left_once_it_has_ended(self, make: Make) -> None:
        async def use() -> None:
            async with running(make()) as one:
                await one.backplane.subscribe([Subject("all")])
                await one.backplane.publish([(Subject("all"), b"x")])
                await one.until(lambda: one.of("all") == [b"x"])

        await use()  # what a driver keeps for the process is made now
        tasks, sockets = len(asyncio.all_tasks()), _sockets()
        await use()
        async with asyncio.timeout(SECONDS):
            while len(asyncio.all_tasks()) > tasks or _sockets() > sockets:
                await asyncio.sleep(0.05)

    async def test_the_number_of_connections_does_not_depend_on_the_subjects(self, start: Start) -> None:
        one = await start()

        async def use(subjects: Sequence[Subject]) -> int:
            one.heard.clear()
            await one.backplane.subscribe(subjects)
            await one.backplane.publish([(subject, b"x") for subject in subjects])
            await one.until(lambda: len(one.heard) == len(subjects))
            return _sockets()

        subjects = [Subject(f"user.{n}") for n in range(500)]
        few = await use(subjects[:100])  # on all servers, where there are several
        assert await use(subjects[100:]) == few

    # ── connections end ───────────────────────────────────────────────────────────────────────────────

    async def test_after_reconnecting_the_subscriptions_are_in_force(self, start: Start) -> None:
        one, two = await start(), await start()
        await one.backplane.subscribe([Subject("node.one")])
        await one.backplane.reconnect()
        await asyncio.sleep(0.05)
        await two.says_until(lambda: bool(one.heard), "node.one")

    async def test_an_interruption_is_told_before_what_comes_after_it(self, start: Start) -> None:
        one, two = await start(), await start()
        await one.backplane.subscribe([Subject("all")])
        numbers = iter(range(1_000_000))

        async def count(until: Callable[[], bool]) -> None:
            async with asyncio.timeout(SECONDS):
                while not until():
                    await two.backplane.publish([(Subject("all"), b"%d" % next(numbers))])
                    await asyncio.sleep(0.001)

        await count(lambda: len(one.heard) > 20)
        await one.backplane.reconnect()
        before = len(one.heard)
        await count(lambda: len(one.heard) > before + 50)
        _check_holes(one)

    async def test_a_restart_of_the_server_is_survived(self, start: Start, outage: Outage | None) -> None:
        hurt = given(outage)
        one, two = await start(), await start()
        await one.backplane.subscribe([Subject("node.one"), Subject("all")])
        await two.backplane.subscribe([Subject("node.two"), Subject("all")])
        await asyncio.to_thread(hurt.restart)
        await _is_told(one)
        await _is_told(two)
        await one.says_until(lambda: bool(two.of("node.two")), "node.two")
        await two.says_until(lambda: bool(one.of("node.one")), "node.one")
        late = await start()
        await late.says_until(lambda: bool(one.of("all") and two.of("all")), "all")
        await _subscribes(late, "topic.late")
        await one.says_until(lambda: bool(late.of("topic.late")), "topic.late")

    async def test_a_server_that_does_not_answer_is_given_up(self, start: Start, outage: Outage | None) -> None:
        hurt = given(outage)
        one, two = await start(), await start()
        await one.backplane.subscribe([Subject("node.one")])
        await two.backplane.subscribe([Subject("node.two")])
        await asyncio.to_thread(hurt.pause)
        try:
            with pytest.raises(BackplaneUnavailable):
                await _again_and_again(lambda: one.backplane.publish([(Subject("node.two"), b"lost, perhaps")]))
            await _cannot_subscribe(one, "topic.wanted")
        finally:
            await asyncio.to_thread(hurt.resume)
        await two.says_until(lambda: bool(one.of("topic.wanted")), "topic.wanted")
        await one.says_until(lambda: bool(two.of("node.two")), "node.two")

    async def test_a_cut_connection_is_an_interruption(self, start: Start, linked: Linked | None) -> None:
        make_linked, link = given(linked)
        one, two = await start(make_linked), await start()
        await one.backplane.subscribe([Subject("all"), Subject("node.one")])
        for times in range(1, 4):
            await asyncio.to_thread(link.cut)
            await _is_told(one, times)
            one.heard.clear()
            await two.says_until(lambda: bool(one.of("node.one")), "node.one")
        assert two.interrupted_at == []

    async def test_what_is_kept_is_not_missed(self, start: Start, linked: Linked | None) -> None:
        make_linked, link = given(linked)
        one, two = await start(make_linked), await start()
        if not one.backplane.traits.survives_restart:
            pytest.skip("the engine keeps nothing")
        await one.backplane.subscribe([Subject("all")])
        for n in range(30):
            if n % 10 == 5:
                await asyncio.to_thread(link.cut)
            await two.backplane.publish([(Subject("all"), b"%d" % n)])
        await one.backplane.reconnect()
        await one.until(lambda: len(one.heard) >= 30)
        assert one.of("all") == [b"%d" % n for n in range(30)]

    async def test_it_comes_back_once_the_server_can_be_reached(self, start: Start, linked: Linked | None) -> None:
        make_linked, link = given(linked)
        one, two = await start(make_linked), await start()
        await one.backplane.subscribe([Subject("node.one")])
        await asyncio.to_thread(link.refuse)
        with pytest.raises(BackplaneUnavailable):
            await _again_and_again(lambda: one.backplane.publish([(Subject("all"), b"x")]))
        await _cannot_subscribe(one, "topic.wanted")
        await one.backplane.unsubscribe([Subject("node.one")])
        await asyncio.to_thread(link.heal)
        await _is_told(one)
        await two.says_until(lambda: bool(one.of("topic.wanted")), "topic.wanted")
        await two.backplane.publish([(Subject("node.one"), b"no"), (Subject("topic.wanted"), b"the end")])
        await one.until(lambda: b"the end" in one.of("topic.wanted"))
        assert one.of("node.one") == []

    async def test_a_connection_that_swallows_everything_is_given_up(self, start: Start, linked: Linked | None) -> None:
        make_linked, link = given(linked)
        one, two = await start(make_linked), await start()
        await one.backplane.subscribe([Subject("node.one")])
        await asyncio.to_thread(link.blackhole)
        with pytest.raises(BackplaneUnavailable):
            await _again_and_again(lambda: one.backplane.publish([(Subject("all"), b"x")]))
        # What is reset now may be a connection that was given up already, or one that waits for its first answer.
        await asyncio.to_thread(link.cut)
        await asyncio.to_thread(link.heal)
        await _is_told(one)
        await two.says_until(lambda: bool(one.heard), "node.one")

    async def test_a_slow_connection_keeps_the_order(self, start: Start, linked: Linked | None) -> None:
        make_linked, link = given(linked)
        one, two = await start(make_linked), await start()
        await one.backplane.subscribe([Subject("all")])
        await asyncio.to_thread(link.delay, 0.02)
        for n in range(40):
            await two.backplane.publish([(Subject("all"), b"%d" % n)])
        await one.until(lambda: len(one.heard) == 40)
        assert one.of("all") == [b"%d" % n for n in range(40)]
        assert one.interrupted_at == []

    async def test_what_was_lost_on_the_way_is_told(self, start: Start, linked: Linked | None) -> None:
        make_linked, link = given(linked)
        one, two = await start(make_linked), await start()
        await one.backplane.subscribe([Subject("all")])
        numbers = iter(range(1_000_000))

        async def say(count: int) -> None:
            for n in itertools.islice(numbers, count):
                await two.backplane.publish([(Subject("all"), b"%d" % n)])

        await say(10)
        await one.until(lambda: len(one.heard) == 10)
        await asyncio.to_thread(link.mute)
        await say(10)
        await asyncio.to_thread(link.cut)
        await asyncio.to_thread(link.heal)
        await _is_told(one)
        async with asyncio.timeout(SECONDS):
            while len(one.heard) < 30:
                await say(1)
                await asyncio.sleep(0.01)
        _check_holes(one)

    async def test_connections_that_overtake_one_another_keep_the_order(
        self, start: Start, linked: Linked | None
    ) -> None:
        make_linked, link = given(linked)
        one, two = await start(make_linked), await start()
        await one.backplane.subscribe([Subject("node.one")])
        await two.backplane.subscribe([Subject("all"), Subject("node.two")])
        await asyncio.to_thread(link.scatter, 0.03)
        for n in range(30):
            await one.backplane.publish([(Subject("all"), b"%d" % n), (Subject("node.two"), b"%d" % n)])
        await two.until(lambda: len(two.heard) == 60)
        assert two.of("all") == two.of("node.two") == [b"%d" % n for n in range(30)]


async def _is_told(peer: Peer, times: int = 1) -> None:
    """So many interruptions were told; an engine that keeps what is published need not notice short ones."""
    if not peer.backplane.traits.survives_restart:
        await peer.until(lambda: len(peer.interrupted_at) >= times)


async def _cannot_subscribe(peer: Peer, name: str) -> None:
    """It is refused; an engine that keeps what is published may know without the server that nothing will be missed."""
    keeps = peer.backplane.traits.survives_restart
    with suppress(BackplaneUnavailable) if keeps else pytest.raises(BackplaneUnavailable):
        await peer.backplane.subscribe([Subject(name)])


async def _again_and_again(call: Callable[[], Awaitable[None]]) -> None:
    async with asyncio.timeout(SECONDS):
        while True:
            await call()
            await asyncio.sleep(0.05)


async def _subscribes(peer: Peer, *names: str) -> None:
    subjects: Sequence[Subject] = [Subject(name) for name in names]
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                return await peer.backplane.subscribe(subjects)
            except BackplaneUnavailable:
                await asyncio.sleep(0.05)


def _check_holes(peer: Peer) -> None:
    """Where numbers are missing among what was heard, an interruption was told between its neighbours."""
    numbers = [int(payload) for _, payload in peer.heard]
    assert numbers == sorted(set(numbers))
    holes = [at for at in range(1, len(numbers)) if numbers[at] != numbers[at - 1] + 1]
    assert set(holes) <= set(peer.interrupted_at)


def _sockets() -> int:
    """How many sockets this process has open; 0 where that cannot be seen."""
    found = 0
    with suppress(OSError):
        for file in Path("/proc/self/fd").iterdir():
            with suppress(OSError):
                found += os.readlink(file).startswith("socket:")
    return found
