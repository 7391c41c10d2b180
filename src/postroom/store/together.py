"""Appends that stand or fall together: what of a batch belongs together, and whether all of it can be stored."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Final

from postroom.channel import Retention
from postroom.errors import KeyReused, MailboxFull, MessageTooLarge, Refused, TransactionRefused
from postroom.position import LogKey
from postroom.store.base import Append, message_bytes

_tied: Final = attrgetter("tied")

FirstUse = Callable[[Append], bytes | None]
"""The digest of the body that an item's idempotency key was used for, if it was used within its window."""

MakeRoom = Callable[[LogKey, Retention, int, int], bool]
"""Makes room in a log for so many messages and bytes by dropping what is confirmed; whether there is room then."""


def apart(batch: Sequence[Append]) -> bool:
    """Whether no item is tied to another, as in most batches: then there is nothing to look at together."""
    return True not in map(_tied, batch)


def runs(batch: Sequence[Append]) -> Iterator[Sequence[Append]]:
    """The batch in its order, cut before each item that is not tied to the one before it."""
    start = 0
    for at in range(1, len(batch) + 1):
        if at == len(batch) or not batch[at].tied:
            yield batch[start:at]
            start = at


def digest(item: Append) -> bytes:
    """What tells one body from another under the same idempotency key."""
    return hashlib.sha256(item.message.body).digest()


def refusals(run: Sequence[Append], first_use: FirstUse, make_room: MakeRoom) -> Sequence[Refused] | None:
    """Why `run` cannot be stored as a whole: one answer an item, the reason for the one that is at fault.

    None: it can, and nothing has changed but that confirmed messages may have made room.
    """
    keys: dict[tuple[LogKey, str, str], bytes] = {}
    wanted: dict[LogKey, tuple[int, int, int]] = {}  # the first item's place, how many, how large
    for at, item in enumerate(run):
        if item.key is not None:
            key = (item.log, item.message.sender or "", item.key)
            used, body = keys.get(key) or first_use(item), digest(item)
            if used is not None:
                if used != body:
                    return _all(run, at, KeyReused("the idempotency key was used before, for another body"))
                continue
            keys[key] = body
        size = message_bytes(item.message)
        if size > item.retention.max_bytes:
            limit = item.retention.max_bytes
            return _all(run, at, MessageTooLarge(f"a message for this mailbox has at most {limit} bytes"))
        first, count, total = wanted.get(item.log, (at, 0, 0))
        wanted[item.log] = (first, count + 1, total + size)
    for log, (at, count, size) in wanted.items():
        kept = run[at].retention
        if kept.on_overflow == "reject" and not make_room(log, kept, count, size):
            return _all(run, at, MailboxFull("the mailbox is full"))
    return None


def _all(run: Sequence[Append], at: int, why: Refused) -> Sequence[Refused]:
    other = TransactionRefused("another message of its transaction was refused")
    return [why if place == at else other for place in range(len(run))]
