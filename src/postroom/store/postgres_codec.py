"""What the functions of the PostgreSQL engine are handed, column by column, and what they answer."""

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec
from msgspec import Struct

from postroom.channel import Retention
from postroom.destination import Topic, UserQueue
from postroom.errors import KeyReused, MailboxFull, MessageTooLarge, Refused, TransactionRefused
from postroom.identity import Lease, NodeId, UserName
from postroom.message import Message, StoredMessage
from postroom.position import START, Epoch, Head, LogKey, Position
from postroom.store.base import SHARED, Append, Appended, Confirm, Page, message_bytes

_CACHED: Final = 65_536
_MOST: Final = 1 << 60

_pack: Final = msgspec.msgpack.Encoder().encode
_unpack_head: Final = msgspec.msgpack.Decoder(tuple[str | None, dict[str, str]]).decode


class Place(Struct, frozen=True, gc=False):
    """How the database knows a log: its digest, that of its user, and both names for people."""

    digest: bytes
    user_digest: bytes | None
    user: str | None
    name: str


def digest(*parts: str | bytes | None) -> bytes:
    """Sixteen bytes that stand for `parts`."""
    return hashlib.blake2b(_pack(parts), digest_size=16).digest()


@lru_cache(maxsize=_CACHED)
def place_of(log: LogKey) -> Place:
    """Where `log` is."""
    user = log.user
    if user is None:
        return Place(digest("topic", log.name), None, None, readable(log.name))
    return Place(digest("user", user, log.name), user_digest(user), readable(user), readable(log.name))


@lru_cache(maxsize=_CACHED)
def user_digest(user: UserName) -> bytes:
    """The digest of a user's name."""
    return digest("user", user)


def owner_digest(owner: str) -> bytes:
    """The digest of a cursor's owner; empty for the shared one."""
    return digest("owner", owner) if owner != SHARED else b""


def readable(text: str) -> str:
    """`text` as the database may hold it, for people: without what no text of PostgreSQL can hold."""
    return (
        text.replace("\0", "\ufffd").encode(errors="replace").decode() if not text.isascii() or "\0" in text else text
    )


def whole(number: float) -> int:
    """A number of any size as a bigint that is not negative."""
    return min(max(round(number), 0), _MOST)


@lru_cache(maxsize=1024)
def _retention(kept: Retention) -> tuple[int, int, int, int, bool]:
    keep, keep_confirmed = whole(kept.seconds * 1e6), whole(kept.confirmed_seconds * 1e6)
    return keep, keep_confirmed, whole(kept.max_messages), whole(kept.max_bytes), kept.on_overflow == "drop-oldest"


class _Numbered(dict[Any, int]):
    """Numbers things from 1 in the order in which they are first asked for."""

    def __missing__(self, thing: Any) -> int:
        self[thing] = number = len(self) + 1
        return number


class Batch:
    """A batch of appends as columns, and what it takes to read the answers."""

    def __init__(self, items: Sequence[Append]) -> None:
        places = sorted({place_of(item.log).digest: place_of(item.log) for item in items}.values(), key=_by_digest)
        number = {place.digest: n for n, place in enumerate(places, 1)}
        kept, keys = _Numbered(), _Numbered()
        self._logs = [number[place_of(item.log).digest] for item in items]
        self._count = len(places)
        kept_of = [kept[_retention(item.retention)] for item in items]
        key_of = [keys[_key(item)] if item.key is not None else 0 for item in items]
        self.columns: tuple[Any, ...] = (
            [place.digest for place in places],
            [place.user_digest for place in places],
            [place.user for place in places],
            [place.name for place in places],
            *map(list, zip(*kept, strict=True)),
            list(keys),
            self._logs,
            kept_of,
            key_of,
            [min(item.at_least, _MOST) for item in items],
            [item.live for item in items],
            [item.tied and at > 0 for at, item in enumerate(items)],
            [min(message_bytes(item.message), (1 << 31) - 1) for item in items],
            [digest(item.message.body) if item.key is not None else b"" for item in items],
            [_pack((item.message.sender, item.message.headers)) for item in items],
            [item.message.body for item in items],
        )

    def answers(self, row: Sequence[Any]) -> list[Appended | Refused]:
        """What the row that `append` answers says."""
        status, live, epochs, ats, previous, numbers, listed_log, listed_node, listed_incarnation = row
        leases: dict[int, list[Lease]] = {}
        for log, node, incarnation in zip(listed_log or (), listed_node or (), listed_incarnation or (), strict=True):
            leases.setdefault(log, []).append(_lease(node, incarnation))
        out: list[Appended | Refused] = []
        for log, what, seen, epoch, at, before, number in zip(
            self._logs, status, live, epochs, ats, previous, numbers, strict=True
        ):
            if what > 1:
                out.append(_refused(what))
            elif what:
                out.append(Appended(Position(Epoch(epoch), at), before, number, duplicate=True))
            else:
                listed = leases.get(log, ())
                out.append(
                    Appended(
                        Position(Epoch(epoch), at), before, number, listed=tuple(listed), live=seen or bool(listed)
                    )
                )
        return out


def _by_digest(place: Place) -> bytes:
    return place.digest


def _key(item: Append) -> bytes:
    return digest(place_of(item.log).digest, item.message.sender or "", item.key)


@lru_cache(maxsize=1024)
def _lease(node: str, incarnation: int) -> Lease:
    return Lease(NodeId(node), incarnation)


def _refused(status: int) -> Refused:
    if status == 2:
        return KeyReused("the idempotency key was used before, for another body")
    if status == 3:
        return MailboxFull("the mailbox is full")
    if status == 5:
        return TransactionRefused("another message of its transaction was refused")
    return MessageTooLarge("the message is larger than its mailbox may be")


EMPTY: Final = Head(START, 0, 0, 0)


def unpack_head(row: Sequence[Any]) -> Head:
    """The head that a row of `read` or `heads` tells."""
    _, epoch, last, number, floor, floor_number = row[:6]
    return Head(Position(Epoch(epoch), last), number, floor, floor_number)


def unpack_page(log: LogKey, rows: Sequence[Sequence[Any]]) -> Page:
    """One page of `read`; no rows: the log is not known."""
    if not rows:
        return Page([], EMPTY)
    destination = Topic(log.name) if log.user is None else UserQueue(log.user, log.name)
    messages = []
    for row in rows:
        at, epoch, previous, number, live, packed, body = row[6:]
        if at is not None:
            sender, headers = _unpack_head(packed)
            message = Message(destination, UserName(sender) if sender is not None else None, headers, body)
            messages.append(StoredMessage(message, Position(Epoch(epoch), at), previous, number, live))
    return Page(messages, unpack_head(rows[0]))


def furthest(batch: Iterable[Confirm]) -> list[tuple[bytes, bytes, int, int, int]]:
    """The columns of `confirm`: each log and owner once, with the highest position."""
    found: dict[tuple[bytes, bytes], tuple[int, int, int]] = {}
    for item in batch:
        key = place_of(item.log).digest, owner_digest(item.owner)
        at = item.position.epoch, item.position.offset, item.number
        found[key] = max(found.get(key, at), at)
    return [(*key, *at) for key, at in sorted(found.items())]


def by_place(rows: Iterable[Sequence[Any]], count: int) -> list[list[Sequence[Any]]]:
    """Rows that name a place from 1 first, as one list a place."""
    out: list[list[Sequence[Any]]] = [[] for _ in range(count)]
    for row in rows:
        out[row[0] - 1].append(row)
    return out
