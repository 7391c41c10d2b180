"""How user messages find their nodes: broadcast, directory, subject."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from postroom.backplane.base import Subject
from postroom.directory import Directory
from postroom.identity import Lease, UserName
from postroom.peering import ALL, inbox


class Scheme(Protocol):
    """Which subjects carry a user's messages."""

    def interest(self, user: UserName) -> Sequence[Subject]:
        """What a node follows while it holds `user`, besides its inbox and `all`."""
        ...

    def told(self, user: UserName, listed: Iterable[Lease]) -> Sequence[Subject]:
        """Where to tell of a message stored for `user`; `listed` was read from the directory after it was stored."""
        ...

    def cast(self, user: UserName) -> Sequence[Subject] | None:
        """Where to send a transient message for `user`; None: ask the directory first."""
        ...


class Broadcast:
    """Everything to everybody; each node drops what is not for its own. M messages to N nodes cost M·N deliveries."""

    def interest(self, user: UserName) -> Sequence[Subject]:
        """See `Scheme.interest`."""
        return ()

    def told(self, user: UserName, listed: Iterable[Lease]) -> Sequence[Subject]:
        """See `Scheme.told`."""
        return (ALL,)

    def cast(self, user: UserName) -> Sequence[Subject] | None:
        """See `Scheme.cast`."""
        return (ALL,)


class BySubject:
    """A subject for each user: the engine routes. One subscription per user online and node."""

    def interest(self, user: UserName) -> Sequence[Subject]:
        """See `Scheme.interest`."""
        return (_subject(user),)

    def told(self, user: UserName, listed: Iterable[Lease]) -> Sequence[Subject]:
        """See `Scheme.told`."""
        return (_subject(user),)

    def cast(self, user: UserName) -> Sequence[Subject] | None:
        """See `Scheme.cast`."""
        return (_subject(user),)


class ByDirectory:
    """The inboxes of the nodes where the directory lists the user: k deliveries for k nodes, none for who is away.

    What is stored is told by a look-up made after it was stored, never by a cached one: a second device may have
    come up on another node a moment ago.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def interest(self, user: UserName) -> Sequence[Subject]:
        """See `Scheme.interest`."""
        return ()

    def told(self, user: UserName, listed: Iterable[Lease]) -> Sequence[Subject]:
        """See `Scheme.told`."""
        return [inbox(node) for node in self._directory.live(user, listed)]

    def cast(self, user: UserName) -> Sequence[Subject] | None:
        """See `Scheme.cast`."""
        nodes = self._directory.cached(user)
        return None if nodes is None else [inbox(node) for node in nodes]


def scheme_of(name: str, directory: Directory) -> Scheme:
    """The scheme that the setting `routing` names."""
    if name == "broadcast":
        return Broadcast()
    return BySubject() if name == "subject" else ByDirectory(directory)


def _subject(user: UserName) -> Subject:
    return Subject(f"user.{user}")
