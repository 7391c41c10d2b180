"""A running engine on a real NATS server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from postroom.backplane.base import Subject
from postroom.backplane.nats import NatsBackplane
from postroom.testing.contracts.backplane import Peer, running

ALL: Final = Subject("all")


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Peer]:
    """An engine that has heard itself."""
    async with running(NatsBackplane(url)) as peer:
        await peer.backplane.subscribe([ALL])
        await peer.backplane.publish([(ALL, b"hello")])
        await peer.until(lambda: peer.of("all") == [b"hello"])
        yield peer
