"""Who subscribes to what on this node; delivers locally, encoded once a group."""

from collections.abc import Callable, Collection, Hashable, Iterator
from typing import Generic, TypeVar

from postroom.destination import Pattern
from postroom.identity import UserName
from postroom.message import Message
from postroom.subscription import Subscriber

_CACHE_SIZE = 4096

SessionT = TypeVar("SessionT")

Groups = dict[Hashable, dict[Subscriber, Callable[[bytes], None]]]
"""Subscribers of one destination, by their encoding."""


def user_key(user: UserName, name: str) -> str:
    """The hub's key of a user destination. No topic's key holds a line feed, and no user's name does."""
    return f"{user}\n{name}"


class Hub(Generic[SessionT]):
    """The node's sessions by user, and its subscriptions by key (a topic's name, or `user_key`) or pattern."""

    __slots__ = ("_count", "_groups", "_matched", "_patterns", "_sessions")

    def __init__(self) -> None:
        self._sessions: dict[UserName, set[SessionT]] = {}
        self._groups: dict[str, Groups] = {}
        self._patterns: dict[Pattern, Groups] = {}
        self._matched: dict[str, list[Groups]] = {}
        self._count = 0

    @property
    def users(self) -> Collection[UserName]:
        """The users with a session here."""
        return self._sessions.keys()

    @property
    def subscriptions(self) -> int:
        """How many subscriptions there are."""
        return self._count

    @property
    def session_count(self) -> int:
        """How many sessions there are."""
        return sum(map(len, self._sessions.values()))

    def sessions(self) -> Iterator[SessionT]:
        """Every session here."""
        return (session for sessions in self._sessions.values() for session in sessions)

    def sessions_of(self, user: UserName) -> Collection[SessionT]:
        """The sessions of `user` here."""
        return self._sessions.get(user, ())

    def enter(self, user: UserName, session: SessionT) -> bool:
        """`session` is here. True: it is the user's first here."""
        sessions = self._sessions.setdefault(user, set())
        sessions.add(session)
        return len(sessions) == 1

    def leave(self, user: UserName, session: SessionT) -> bool:
        """`session` is gone. True: it was the user's last here."""
        sessions = self._sessions.get(user)
        if sessions is None:
            return False
        sessions.discard(session)
        if not sessions:
            del self._sessions[user]
        return not sessions

    def add(self, key: str, subscriber: Subscriber) -> None:
        """Deliver to `subscriber` what is published under `key`."""
        self._add(self._groups.setdefault(key, {}), subscriber)

    def remove(self, key: str, subscriber: Subscriber) -> None:
        """Undo `add`; nothing happens where it was not added."""
        if (groups := self._groups.get(key)) is not None and self._remove(groups, subscriber):
            del self._groups[key]

    def add_pattern(self, pattern: Pattern, subscriber: Subscriber) -> None:
        """Deliver to `subscriber` what is published under any key that `pattern` matches."""
        self._matched.clear()
        self._add(self._patterns.setdefault(pattern, {}), subscriber)

    def remove_pattern(self, pattern: Pattern, subscriber: Subscriber) -> None:
        """Undo `add_pattern`."""
        self._matched.clear()
        if (groups := self._patterns.get(pattern)) is not None and self._remove(groups, subscriber):
            del self._patterns[pattern]

    def publish(self, key: str, message: Message) -> int:
        """Put `message` into the outbox of every subscriber of `key`; how many those are."""
        groups = self._groups.get(key)
        if self._patterns:
            return self.publish_to_patterns(key, message) + (_deliver(groups, message) if groups is not None else 0)
        return _deliver(groups, message) if groups is not None else 0

    def publish_to_key(self, key: str, message: Message) -> int:
        """As `publish`, to subscribers of the key itself alone."""
        groups = self._groups.get(key)
        return _deliver(groups, message) if groups is not None else 0

    def publish_to_patterns(self, key: str, message: Message) -> int:
        """As `publish`, to subscribers by pattern alone."""
        matched = self._matched.get(key)
        if matched is None:
            matched = [groups for pattern, groups in self._patterns.items() if pattern.matches(key)]
            if len(self._matched) >= _CACHE_SIZE:
                self._matched.clear()
            self._matched[key] = matched
        return sum(_deliver(groups, message) for groups in matched)

    def _add(self, groups: Groups, subscriber: Subscriber) -> None:
        members = groups.setdefault(subscriber.encoding, {})
        if subscriber not in members:
            members[subscriber] = subscriber.put
            self._count += 1

    def _remove(self, groups: Groups, subscriber: Subscriber) -> bool:
        members = groups.get(subscriber.encoding)
        if members is not None and members.pop(subscriber, None) is not None:
            self._count -= 1
            if not members:
                del groups[subscriber.encoding]
        return not groups


def _deliver(groups: Groups, message: Message) -> int:
    delivered = 0
    for members in groups.values():
        frame = next(iter(members)).encode(message)
        for put in members.values():
            put(frame)
        delivered += len(members)
    return delivered
