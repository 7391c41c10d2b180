"""An engine that came up, and one that does not: what the tests of each engine's troubles begin with."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from postroom.backplane.base import Backplane, Subject
from postroom.errors import BackplaneUnavailable
from postroom.testing.contracts.backplane import Peer, running

ALL = Subject("all")


@asynccontextmanager
async def connected(backplane: Backplane, subjects: Sequence[Subject] = (ALL,)) -> AsyncIterator[Peer]:
    """The engine, running, which has heard itself say hello on each of `subjects`."""
    async with running(backplane) as peer:
        await peer.backplane.subscribe(subjects)
        await peer.backplane.publish([(subject, b"hello") for subject in subjects])
        await peer.until(lambda: len(peer.heard) == len(subjects))
        yield peer


async def reason(backplane: Backplane) -> str:
    """Why it does not come up, as it logs it."""
    with capture_logs() as logs:
        async with running(backplane) as peer:
            with pytest.raises(BackplaneUnavailable):
                await peer.backplane.subscribe([ALL])
    return " ".join(str(each.get("reason")) for each in logs)
