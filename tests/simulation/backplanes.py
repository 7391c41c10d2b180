"""A backplane over a bad network: payloads are lost, doubled, late; a node is cut off, or goes deaf unawares."""

import asyncio
import contextvars
import random
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Final, Literal

from postroom.backplane.base import Subject, Traits
from postroom.backplane.memory import MemoryBackplane
from postroom.errors import BackplaneUnavailable

Received = Callable[[Subject, bytes], None]

_RECONNECT: Final = 0.3


@dataclass
class Odds:
    """How often a payload is lost, comes twice, or keeps those behind it waiting; what goes to all too, or not."""

    lost: float = 0.0
    twice: float = 0.0
    late: float = 0.0
    beats: bool = True


class FaultyBackplane:
    """One node's engine. What it takes from the others passes through here; so does what it publishes."""

    traits = Traits(max_payload_bytes=4000, keeps_order_across_reconnect=False, survives_restart=False)

    def __init__(self, url: str, odds: Odds, rng: random.Random, world: Context) -> None:
        self._inner = MemoryBackplane(url)
        self._odds, self._rng, self._world = odds, rng, world
        self._state: Literal["up", "cut", "deaf"] = "up"
        self._wanted: dict[Subject, None] = {}
        self._line: deque[tuple[Subject, bytes]] = deque()
        self._straggling: list[tuple[Subject, bytes]] = []
        self._last = 0.0
        self._own: Context = contextvars.copy_context()
        self._received: Received = _nobody
        self._interrupted: Callable[[], None] = _nothing
        self.severed = False

    # ── how it is ─────────────────────────────────────────────────────────────────────────────────────

    def cut(self) -> None:
        """The connection is lost, and the engine knows it. Some of what was under way may come much later."""
        self._state = "cut"
        self._straggling = [each for each in self._line if self._rng.random() < 0.5]
        self._line.clear()

    def deafen(self) -> None:
        """Nothing comes any more, and the engine does not know it."""
        if self._state == "up":
            self._state = "deaf"

    def heal(self) -> None:
        """The connection is there again; where it was cut, it is another one."""
        if self._state == "cut":
            asyncio.get_running_loop().call_soon(self._connected, context=self._own)
        elif self._state == "deaf":
            self._state = "up"  # by itself nobody would have found out: the node must have, or does now
            asyncio.get_running_loop().call_soon(self._connected, context=self._own)

    def _connected(self) -> None:
        if self.severed:
            return
        self._state = "up"
        self._inner._subjects.update(self._wanted)
        self._interrupted()
        stragglers, self._straggling = self._straggling, []
        for each in stragglers:
            self._later(self._rng.uniform(0.0, 0.3), each)

    # ── `Backplane` ───────────────────────────────────────────────────────────────────────────────────

    async def run(self, received: Received, interrupted: Callable[[], None]) -> None:
        self._own = contextvars.copy_context()
        self._received, self._interrupted = received, interrupted
        await self._inner.run(self._arrived, _nothing)

    async def subscribe(self, subjects: Sequence[Subject]) -> None:
        self._wanted.update(dict.fromkeys(subjects))
        await self._travel()
        if self._state == "cut":
            raise BackplaneUnavailable("the subscriptions are not in force")
        await self._inner.subscribe(subjects)

    async def unsubscribe(self, subjects: Sequence[Subject]) -> None:
        for subject in subjects:
            self._wanted.pop(subject, None)
        await self._inner.unsubscribe(subjects)

    async def publish(self, batch: Sequence[tuple[Subject, bytes]]) -> None:
        await self._travel()
        if self._state == "cut" or self.severed:
            raise BackplaneUnavailable("the backplane is not connected")
        await self._inner.publish(batch)

    async def reconnect(self) -> None:
        self._state = "cut"
        asyncio.get_running_loop().call_later(self._rng.uniform(0, _RECONNECT), self._connected)

    # ── the network ───────────────────────────────────────────────────────────────────────────────────

    async def _travel(self) -> None:
        loop = asyncio.get_running_loop()
        there = loop.create_future()
        seconds = self._rng.uniform(0.0005, 0.004)
        loop.call_later(seconds, lambda: None if there.done() else there.set_result(None), context=self._world)
        await there

    def _arrived(self, subject: Subject, payload: bytes) -> None:
        rng, odds = self._rng, self._odds
        if self._state != "up" or self.severed or (rng.random() < odds.lost and (odds.beats or subject != "all")):
            return
        wait = rng.uniform(0.05, 1.0) if rng.random() < odds.late else rng.uniform(0.0005, 0.004)
        self._line.append((subject, payload))
        loop = asyncio.get_running_loop()
        self._last = max(self._last, loop.time() + wait)
        loop.call_at(self._last, self._next, context=self._own)
        if rng.random() < odds.twice:
            self._later(wait + rng.uniform(0.0, 1.0), (subject, payload))

    def _next(self) -> None:
        if self._line and not self.severed:
            self._received(*self._line.popleft())

    def _later(self, seconds: float, what: tuple[Subject, bytes]) -> None:
        asyncio.get_running_loop().call_later(
            seconds, lambda: None if self.severed else self._received(*what), context=self._own
        )


def _nobody(subject: Subject, payload: bytes) -> None:
    raise AssertionError("it does not run")


def _nothing() -> None:
    pass
