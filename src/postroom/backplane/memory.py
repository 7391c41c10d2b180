"""The backplane inside one process: nodes that name the same one hear one another."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import ClassVar

from postroom.backplane.base import Subject, Traits
from postroom.errors import BackplaneUnavailable
from postroom.memory_link import name_of

_MAX_WAITING = 100_000


class MemoryBackplane:
    """For tests, and for several nodes in one process. `url`: see `postroom.memory_link`."""

    traits = Traits(max_payload_bytes=1 << 30, keeps_order_across_reconnect=True, survives_restart=False)
    _meshes: ClassVar[dict[str, set["MemoryBackplane"]]] = {}

    def __init__(self, url: str = "memory:") -> None:
        self._name = name_of(url)
        self._subjects: set[Subject] = set()
        self._waiting: deque[tuple[Subject, bytes]] = deque()
        self._wake = asyncio.Event()
        self._running = asyncio.Event()

    async def run(self, received: Callable[[Subject, bytes], None], interrupted: Callable[[], None]) -> None:
        """Receive until cancelled."""
        mesh = self._meshes.setdefault(self._name, set())
        mesh.add(self)
        self._running.set()
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._waiting:
                    received(*self._waiting.popleft())
        finally:
            self._running.clear()
            mesh.discard(self)
            if not mesh:
                self._meshes.pop(self._name, None)

    async def subscribe(self, subjects: Sequence[Subject]) -> None:
        """In force as soon as `run` runs."""
        await self._running.wait()
        self._subjects.update(subjects)

    async def unsubscribe(self, subjects: Sequence[Subject]) -> None:
        """In force at once."""
        self._subjects.difference_update(subjects)

    async def publish(self, batch: Sequence[tuple[Subject, bytes]]) -> None:
        """Send to whoever is subscribed, oneself included. Raises BackplaneUnavailable where one is far behind."""
        for subject, payload in batch:
            for peer in self._meshes.get(self._name, ()):
                if subject in peer._subjects:
                    if len(peer._waiting) >= _MAX_WAITING:
                        raise BackplaneUnavailable("a node does not take what is published to it")
                    peer._waiting.append((subject, payload))
                    peer._wake.set()

    async def reconnect(self) -> None:
        """There is no connection."""
