"""Where a session is found: on nodes that live, also where this one has not heard of them yet."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from postroom.identity import Lease, NodeId
from postroom.roaming.claims import Claims
from postroom.sockjs.elsewhere import HomeLost

TWO = NodeId("two")


class Directory:
    """What `Claims` asks: `homes` is what the store says, `peers` what the last renewal said."""

    def __init__(self) -> None:
        self.homes: set[NodeId] = {TWO}
        self.peers: list[Lease] = []
        self.asked = 0

    async def locate(self, users: list[Any]) -> dict[Any, set[NodeId]]:
        self.asked += 1
        return {user: set(self.homes) for user in users}


def spawn(work: Coroutine[Any, Any, None]) -> None:
    asyncio.get_running_loop().create_task(work)


@pytest.fixture
def directory() -> Directory:
    return Directory()


@pytest.fixture
def claims(directory: Directory) -> Claims:
    return Claims(directory, spawn=spawn)  # type: ignore[arg-type]


async def test_a_node_that_has_just_joined_keeps_its_sessions(directory: Directory, claims: Claims) -> None:
    for _ in range(3):
        assert await claims.find("s") == TWO


async def test_a_known_peers_session_is_remembered(directory: Directory, claims: Claims) -> None:
    directory.peers = [Lease(TWO, 1)]
    for _ in range(3):
        assert await claims.find("s") == TWO
    assert directory.asked == 1


async def test_a_session_whose_node_is_gone_is_lost_once_and_unknown_then(directory: Directory, claims: Claims) -> None:
    assert await claims.find("s") == TWO
    directory.homes = set()
    with pytest.raises(HomeLost):
        await claims.find("s")
    assert await claims.find("s") is None
