"""Which node has a SockJS session: an entry in the directory, which ends with its node's lease."""

import asyncio
from collections.abc import Callable, Coroutine
from hashlib import sha256
from typing import Any, Final

import structlog

from postroom.directory import Directory
from postroom.errors import HandshakeRefused, StoreUnavailable
from postroom.identity import NodeId, UserName
from postroom.sockjs.elsewhere import HomeLost

_log = structlog.get_logger("postroom.roaming")

_REMEMBERED: Final = 100_000
_AT_ONCE: Final = 5_000
_RETRY_SECONDS: Final = 0.3


class Claims:
    """The sessions that this node has, and where it found others.

    A session that is not found is claimed: entered, then looked for once more. Of two nodes that claim one at once
    each sees the other, or one does. Whoever sees another gives way, so that two never keep it. Then both may have
    given way, and the client is told to connect anew; a client that waits for its first answer, as all do, cannot
    bring that about. Who only finds a session enters nothing, and so is never found in its place.
    """

    def __init__(self, directory: Directory, *, spawn: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._directory = directory
        self._spawn = spawn
        self._ours: set[UserName] = set()
        self._claiming: dict[UserName, asyncio.Event] = {}
        self._homes: dict[UserName, NodeId] = {}
        self._left: list[UserName] = []

    async def claim(self, session: str) -> NodeId | None:
        """Make a session ours that nobody was found to have; its home where it is another's after all.

        Raises HandshakeRefused.
        """
        key = _key(session)
        while (others := self._claiming.get(key)) is not None:
            await others.wait()
        if key in self._ours:
            return None
        self._claiming[key] = done = asyncio.Event()
        try:
            return await self._claim(key)
        except StoreUnavailable as error:
            raise _unavailable(error) from error
        finally:
            del self._claiming[key]
            done.set()

    async def find(self, session: str) -> NodeId | None:
        """The session's home on another node. Raises HomeLost, or HandshakeRefused."""
        key = _key(session)
        remembered = self._homes.get(key)
        if remembered is not None and any(peer.node == remembered for peer in self._directory.peers):
            return remembered
        # A node that has just joined is no peer before the next renewal of the lease: the directory itself knows it.
        self._homes.pop(key, None)
        try:
            home = await self._locate(key)
        except StoreUnavailable as error:
            raise _unavailable(error) from error
        if home is None and remembered is not None:
            raise HomeLost
        return home

    def release(self, session: str) -> None:
        """The session is over."""
        key = _key(session)
        if key in self._ours:
            self._ours.discard(key)
            self._left.append(key)
            if len(self._left) == 1:
                self._spawn(self._leave())

    def forget(self, session: str) -> None:
        """It was not where it had been found."""
        self._homes.pop(_key(session), None)

    def rejoined(self) -> None:
        """This node has a new incarnation: what its older one entered counts for nothing."""
        if self._ours:
            self._spawn(self._enter_again(list(self._ours)))

    async def withdraw(self) -> None:
        """The node goes. Raises StoreUnavailable."""
        ours = list(self._ours)
        self._ours.clear()
        for start in range(0, len(ours), _AT_ONCE):
            await self._directory.leave(ours[start : start + _AT_ONCE])

    async def _claim(self, key: UserName) -> NodeId | None:
        await self._directory.enter([key])
        home = await self._locate(key)
        if home is None:
            self._ours.add(key)
        else:
            await self._directory.leave([key])
        return home

    async def _locate(self, key: UserName) -> NodeId | None:
        home = min((await self._directory.locate([key]))[key], default=None)
        if home is not None:
            if len(self._homes) >= _REMEMBERED:
                self._homes.clear()
            self._homes[key] = home
        return home

    async def _leave(self) -> None:
        await asyncio.sleep(0)  # what ends in the same turn of the loop leaves together
        left = [key for key in self._left if key not in self._ours and key not in self._claiming]
        self._left = []
        try:
            await self._directory.leave(left)
        except StoreUnavailable as error:
            # Found, it leads to a node that does not know it any more; it goes when the lease ends.
            _log.warning("ended sessions stay in the directory", sessions=len(left), reason=str(error))

    async def _enter_again(self, keys: list[UserName]) -> None:
        while batch := [key for key in keys[:_AT_ONCE] if key in self._ours]:
            try:
                await self._directory.enter(batch)
            except StoreUnavailable as error:
                _log.warning("other nodes cannot be told yet which sessions are here", reason=str(error))
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                keys = keys[_AT_ONCE:]


def _key(session: str) -> UserName:
    # No user's name begins with a control character. The id itself is a secret of its client.
    return UserName(f"\x1fsockjs:{sha256(session.encode()).hexdigest()[:40]}")


def _unavailable(error: StoreUnavailable) -> HandshakeRefused:
    return HandshakeRefused(503, f"the session's node cannot be found now: {error}")
