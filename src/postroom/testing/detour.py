"""Whether an engine stays on the link that it was given.

Clients of some servers are told other addresses, and connect to these: the brokers that Kafka advertises, the nodes of
a Redis Cluster, the primary that a Sentinel names. What is done to the link then does nothing to them.
"""

import asyncio
import secrets
from typing import Final

from postroom.backplane.base import Subject
from postroom.errors import BackplaneUnavailable, StoreUnavailable
from postroom.testing.contracts.backplane import Linked as LinkedBackplane
from postroom.testing.contracts.backplane import Make, running
from postroom.testing.contracts.log_store import HandClock, bodies, item
from postroom.testing.contracts.log_store import Make as MakeStore
from postroom.testing.contracts.store_faults import Linked as LinkedStore

_SECONDS: Final = 2.0
"""How long something that was published without an error may be under way."""


async def backplane_goes_round(make: Make, linked: LinkedBackplane) -> bool:
    """Whether what is published over a link that refuses everything arrives. Raises BackplaneUnavailable where the
    engine cannot be used over the link."""
    make_linked, link = linked
    subject = Subject(f"node.detour-{secrets.token_hex(8)}")
    async with running(make()) as direct, running(make_linked()) as over:
        for peer in (direct, over):
            await peer.backplane.subscribe([subject])
        await asyncio.to_thread(link.refuse)
        try:
            await over.backplane.publish([(subject, b"round")])
            async with asyncio.timeout(_SECONDS):
                await direct.until(lambda: bool(direct.heard))
        except (BackplaneUnavailable, TimeoutError):
            return False
        return True


async def store_goes_round(make: MakeStore, linked: LinkedStore) -> bool:
    """Whether what is appended over a link that refuses everything is stored. Raises StoreUnavailable where the engine
    cannot be used over the link."""
    make_linked, link = linked
    clock = HandClock()
    async with make(clock) as direct, make_linked(clock) as over:
        await over.append([item(b"over")])
        await asyncio.to_thread(link.refuse)
        try:
            await over.append([item(b"round")])
        except StoreUnavailable:
            return False
        return b"round" in await bodies(direct)
