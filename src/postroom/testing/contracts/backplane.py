"""What every backplane must do. Subclass it, and give it a fixture `make`."""

# ruff: noqa: D102 (a test says its promise in its name)

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from postroom.backplane.base import Backplane, Subject

Make = Callable[[], Backplane]
"""Makes an engine, not yet running. Those that one test makes hear one another."""

_SECONDS = 10.0


class Peer:
    """A running engine, and what it heard."""

    def __init__(self, backplane: Backplane) -> None:
        self.backplane = backplane
        self.heard: list[tuple[str, bytes]] = []
        self.interruptions = 0
        self._changed = asyncio.Event()

    def received(self, subject: Subject, payload: bytes) -> None:
        """Take a payload."""
        self.heard.append((subject, payload))
        self._changed.set()

    def interrupted(self) -> None:
        """Take the news of a re-connection."""
        self.interruptions += 1
        self._changed.set()

    async def until(self, what: Callable[[], bool]) -> None:
        """Return once `what` is true of this peer."""
        async with asyncio.timeout(_SECONDS):
            while not what():
                self._changed.clear()
                await self._changed.wait()

    def of(self, subject: str) -> list[bytes]:
        """The payloads of one subject, in order."""
        return [payload for name, payload in self.heard if name == subject]


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


Start = Callable[[], Awaitable[Peer]]


class BackplaneContract:
    """The promises of `postroom.backplane.base.Backplane`."""

    @pytest.fixture
    def make(self) -> Make:
        """Give the kit your engine: override this."""
        pytest.fail("override the fixture `make`: it returns a function that makes an engine")

    @pytest.fixture
    async def start(self, make: Make) -> AsyncIterator[Start]:
        """Starts one more engine that hears the others."""
        async with AsyncExitStack() as stack:

            async def start() -> Peer:
                return await stack.enter_async_context(running(make()))

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

    async def test_after_reconnecting_the_subscriptions_are_in_force(self, start: Start) -> None:
        one, two = await start(), await start()
        await one.backplane.subscribe([Subject("node.one")])
        await one.backplane.reconnect()
        await asyncio.sleep(0.05)

        async def say_until_heard() -> None:
            while not one.heard:
                await two.backplane.publish([(Subject("node.one"), b"hello")])
                await asyncio.sleep(0.05)

        async with asyncio.timeout(_SECONDS):
            await say_until_heard()
