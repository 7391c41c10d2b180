"""Keeps the node's subjects and directory entries equal to who and what is here."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Final

import structlog

from postroom.backplane.base import Backplane, Subject
from postroom.directory import Directory
from postroom.errors import BackplaneUnavailable, StoreUnavailable
from postroom.identity import UserName
from postroom.peering import Peering
from postroom.scheme import Scheme

_log = structlog.get_logger("postroom.interest")

_RETRY_SECONDS: Final = 0.3
_LATE_SECONDS: Final = 5.0
"""So much later a store may do what was asked of it before it hung: what it took then is done by now."""

_AT_ONCE: Final = 5_000


class Interest:
    """What this node follows on the backplane, and which users it lists in the directory.

    Derived from `users` (who has a session here) and from the topics that are entered; brought about in batches,
    again until it succeeds. `restored` is called once users have been entered that were here already, and that
    others may not have found for a while. Each method that adds something returns a future that is done once it is
    in force, or None where it is already.
    """

    def __init__(
        self,
        backplane: Backplane,
        directory: Directory,
        scheme: Scheme,
        peering: Peering,
        users: Collection[UserName],
        restored: Callable[[], None],
    ) -> None:
        self._backplane = backplane
        self._directory = directory
        self._scheme = scheme
        self._peering = peering
        self._users = users
        self._restored = restored
        self._wanted: Counter[Subject] = Counter()
        self._in_force: set[Subject] = set()
        self._entered: set[UserName] = set()
        # Listed or not: the store's answer was lost, or the store forgets. How often an entry must be made to be sure.
        self._doubtful: dict[UserName, int] = {}
        self._subjects: dict[Subject, None] = {}
        self._moved: dict[UserName, None] = {}
        self._waiting: dict[Subject | tuple[UserName], asyncio.Future[None]] = {}
        self._wake = asyncio.Event()
        self._told = True

    @property
    def subjects(self) -> set[Subject]:
        """What is followed now."""
        return self._in_force

    # ── what is wanted ────────────────────────────────────────────────────────────────────────────────

    def follow(self, subject: Subject) -> asyncio.Future[None] | None:
        """One more reason to follow `subject`."""
        self._wanted[subject] += 1
        if subject in self._in_force and subject not in self._subjects:
            return None
        self._subjects[subject] = None
        return self._wait(subject)

    def unfollow(self, subject: Subject) -> None:
        """One reason less."""
        self._wanted[subject] -= 1
        if self._wanted[subject] <= 0:
            del self._wanted[subject]
            self._subjects[subject] = None
            self._wake.set()

    def user(self, user: UserName) -> asyncio.Future[None] | None:
        """Somebody of `user` is here."""
        if user in self._entered and user not in self._moved:
            return None
        self._moved[user] = None
        return self._wait((user,))

    def user_left(self, user: UserName) -> None:
        """The user's last session here is gone."""
        self._moved[user] = None
        self._wake.set()

    def rejoined(self) -> None:
        """This node has a new incarnation: what its older one entered counts for nothing."""
        self._entered.clear()
        self._doubtful = dict.fromkeys(self._users, 1)
        self._moved.update(dict.fromkeys(self._users))
        self._wake.set()

    def reenter(self) -> None:
        """The directory may have forgotten who is here, as a store does that fails over: list everybody anew."""
        for user in self._entered:
            self._doubtful[user] = max(1, self._doubtful.get(user, 0))
        self._entered.clear()
        self._moved.update(dict.fromkeys(self._users))
        self._wake.set()

    async def withdraw(self) -> None:
        """The node goes: nobody is here any more. Raises StoreUnavailable."""
        users = list({**dict.fromkeys(self._entered), **self._doubtful})
        self._entered.clear()
        self._doubtful.clear()
        for start in range(0, len(users), _AT_ONCE):
            await self._directory.leave(users[start : start + _AT_ONCE])

    def _wait(self, key: Subject | tuple[UserName]) -> asyncio.Future[None]:
        self._wake.set()
        waiting = self._waiting.get(key)
        if waiting is None or waiting.done():
            waiting = self._waiting[key] = asyncio.get_running_loop().create_future()
        return waiting

    # ── bringing it about ─────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Bring about what is wanted, for as long as the node lives."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._subjects or self._moved:
                if not await self._step():
                    await asyncio.sleep(_RETRY_SECONDS)

    async def _step(self) -> bool:
        moved = list(self._moved)[:_AT_ONCE]
        came = [user for user in moved if user in self._users and user not in self._entered]
        # A user is found only once its messages will arrive: subjects first.
        for user in came:
            for subject in self._scheme.interest(user):
                self._wanted[subject] = max(1, self._wanted[subject])
                self._subjects[subject] = None
        subjects = list(self._subjects)[: 2 * _AT_ONCE]
        try:
            await self._follow(subjects)
            await self._enter(moved)
        except (BackplaneUnavailable, StoreUnavailable) as error:
            if self._told:
                _log.warning("other nodes cannot be told yet who is here", reason=str(error))
            self._told = False
            return False
        if not self._told:
            _log.warning("other nodes are told again who is here")
        self._told = True
        return True

    async def _follow(self, subjects: Sequence[Subject]) -> None:
        new = [subject for subject in subjects if subject in self._wanted and subject not in self._in_force]
        for subject in subjects:
            self._subjects.pop(subject, None)
        try:
            if new:
                await self._backplane.subscribe(new)
        except BackplaneUnavailable:
            self._subjects.update(dict.fromkeys(subjects))
            raise
        self._in_force.update(new)
        gone = [subject for subject in subjects if subject not in self._wanted and subject in self._in_force]
        for subject in subjects:
            if subject in self._in_force:
                self._done(subject)
        if gone:
            self._in_force.difference_update(gone)
            for subject in gone:
                self._peering.unfollowed(subject)
            await self._backplane.unsubscribe(gone)

    async def _enter(self, moved: Sequence[UserName]) -> None:
        for user in moved:
            self._moved.pop(user, None)
        came = [user for user in moved if user in self._users and user not in self._entered]
        left = [user for user in moved if user not in self._users and (user in self._entered or user in self._doubtful)]
        self._entered.difference_update(left)
        for user in (*came, *left):
            self._doubtful.setdefault(user, 0)
        lease = self._directory.lease
        try:
            if came:
                await self._directory.enter(came)
            if left:
                await self._directory.leave(left)
        except StoreUnavailable:
            # What had no answer may be done yet, behind the entry of one who has come back: that is made twice.
            self._doubtful.update(dict.fromkeys(left, 2))
            self._moved.update(dict.fromkeys(moved))
            raise
        for user in left:
            for subject in self._scheme.interest(user):
                self.unfollow(subject)
        if lease != self._directory.lease:  # entered as an incarnation that is no more
            self._moved.update(dict.fromkeys(came))
            return
        self._entered.update(came)
        self._sure(came, left)
        for user in moved:
            if user not in self._moved:  # otherwise it came or went meanwhile
                self._done((user,))

    def _sure(self, came: Sequence[UserName], left: Sequence[UserName]) -> None:
        for user in left:
            self._doubtful.pop(user, None)
        times = {user: self._doubtful.pop(user, 0) for user in came}
        for user in came:
            if times[user] > 1:
                asyncio.get_running_loop().call_later(_LATE_SECONDS, self._doubt, user)
        if any(times.values()):
            self._restored()

    def _doubt(self, user: UserName) -> None:
        if user in self._entered:
            self._entered.discard(user)
            self._doubtful[user] = 1
            self._moved[user] = None
            self._wake.set()

    def _done(self, key: Subject | tuple[UserName]) -> None:
        waiting = self._waiting.pop(key, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)
