"""Where a message stands in a log, and what a log is called."""

from typing import NewType

from msgspec import Struct

from postroom.identity import UserName

Epoch = NewType("Epoch", int)
"""A generation of the store. It grows whenever the store may have lost the tail of its logs."""


class Position(Struct, frozen=True, order=True):
    """A place in a log. Compared as a pair: an offset of a later epoch is later.

    Offsets are microseconds since 1970 by the store's clock, or one more than the previous offset where
    that is higher: they grow, are never used twice, and are not contiguous.
    """

    epoch: Epoch
    offset: int


START = Position(Epoch(0), 0)
"""Before every message."""


class LogKey(Struct, frozen=True):
    """The name of a log: a user's mailbox for one destination, or a topic's history (`user` is None).

    `name` is the destination without its user part: `/queue/inbox`, `/topic/reply`.
    """

    user: UserName | None
    name: str


class Head(Struct, frozen=True):
    """The end of a log: the position and running number of its last message, and what trimming has removed.

    `floor` is the highest offset that was removed, `floor_number` its running number (0: none). An empty log
    that never held anything has `last == START` and `number == 0`.
    """

    last: Position
    number: int
    floor: int
    floor_number: int
