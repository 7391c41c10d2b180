"""What the scripts of the Redis engine are handed and what they answer, as bytes.

The layouts are those at the top of `lua/*.lua`.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
from struct import Struct as Layout
from typing import Any, Final
from urllib.parse import quote

import msgspec

from postroom.channel import Retention
from postroom.destination import Topic, UserQueue
from postroom.errors import KeyReused, MailboxFull, MessageTooLarge, Refused, TransactionRefused
from postroom.identity import Lease, NodeId, UserName
from postroom.message import Message, StoredMessage
from postroom.position import Epoch, Head, LogKey, Position
from postroom.store.base import Append, Appended, Confirm, Cursor, Page

REPEAT: Final = 1
"""The flag, in the first byte of an item, of an append that may have been stored before."""
_LIVE: Final = 2
_USER: Final = 4
_TIED: Final = 8
_LOOK, _CONFIRM, _ATTEMPT = 0, 1, 2
LOCATE, ENTER, LEAVE = 0, 1, 2

_MOST: Final = 1 << 53
_ITEM: Final = Layout(">BHHHI")
_PAYLOAD: Final = Layout(">8sII")
_ENTRY: Final = Layout(">5s7sB8sII")
_ANSWER: Final = Layout(">BBHQQQQ")
_HEAD: Final = Layout(">5Q")
_PAGE: Final = Layout(">7Q")
_CURSOR: Final = Layout(">4Q")
_ENTRY_ITEM: Final = Layout(">BHH")
_TWO: Final = Layout(">HH")
_CURSOR_ITEM: Final = Layout(">BHHH")
_CACHED: Final = 65_536

_pack_rest: Final = msgspec.msgpack.Encoder().encode
_unpack_rest: Final = msgspec.msgpack.Decoder(tuple[str | None, dict[str, str]]).decode


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where the keys of a log are: their prefix and hash tag, the name behind it, and the hash tag's text alone."""

    base: bytes
    name: bytes
    tag: bytes


@lru_cache(maxsize=_CACHED)
def place_of(prefix: str, log: LogKey) -> Place:
    """Where `log` is. Names are percent-encoded, since a brace would end the hash tag."""
    if log.user is None:
        tag = "t:" + quote(log.name, safe="")
        return Place(f"{prefix}:{{{tag}}}".encode(), b"", tag.encode())
    return msgspec.structs.replace(home_of(prefix, log.user), name=quote(log.name, safe="/").encode())


@lru_cache(maxsize=_CACHED)
def home_of(prefix: str, user: UserName) -> Place:
    """Where all that is a user's is."""
    tag = "u:" + quote(user, safe="")
    return Place(f"{prefix}:{{{tag}}}".encode(), b"", tag.encode())


def _whole(number: int, size: int) -> bytes:
    # What Lua would not count exactly is cut to what it does.
    return (number if 0 <= number <= _MOST else min(max(number, 0), _MOST)).to_bytes(size, "big")


# ── append ────────────────────────────────────────────────────────────────────────────────────────────


@lru_cache(maxsize=1024)
def _packed_retention(kept: Retention) -> bytes:
    keep, keep_confirmed = round(kept.seconds * 1000), round(kept.confirmed_seconds * 1000)
    sizes = _whole(kept.max_messages, 7) + _whole(kept.max_bytes, 7)
    return _whole(keep, 6) + _whole(keep_confirmed, 6) + sizes + bytes((kept.on_overflow == "drop-oldest",))


def pack_append(item: Append, place: Place, id: bytes, *, tied: bool = False) -> bytes:
    """An item of `append.lua`. `id` tells a repeat from another message; `tied` binds it to the item before it."""
    message, body = item.message, item.message.body
    headers = message.headers
    header_bytes = sum(map(len, headers)) + sum(map(len, headers.values()))
    rest = _pack_rest((message.sender, headers))
    key = _packed_key(item, place) if item.key is not None else b""
    flags = (_LIVE if item.live else 0) | (_USER if item.log.user is not None else 0) | (_TIED if tied else 0)
    payload = _PAYLOAD.size + len(body) + len(rest)
    return b"".join(
        (
            _ITEM.pack(flags, len(place.base), len(place.name), len(key), payload),
            _whole(item.at_least, 7),
            _packed_retention(item.retention),
            place.base,
            place.name,
            key,
            _PAYLOAD.pack(id, len(body), header_bytes),
            body,
            rest,
        )
    )


def _packed_key(item: Append, place: Place) -> bytes:
    scope = _pack_rest((place.name, item.message.sender, item.key))
    return _digest(item.message.body) + _digest(scope).hex().encode()


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def flagged(item: bytes) -> bytes:
    """The same item, as a repeat."""
    return bytes((item[0] | REPEAT,)) + item[1:]


def unpack_appended(reply: Any) -> list[Appended | Refused]:
    """The answers of `append.lua`."""
    packed, listed = reply
    leases = map(unpack_lease, listed)
    out: list[Appended | Refused] = []
    for status, live, count, epoch, offset, previous, number in _ANSWER.iter_unpack(packed):
        if status > 1:
            out.append(_refused(status))
            continue
        out.append(
            Appended(
                Position(epoch, offset),
                previous,
                number,
                duplicate=status == 1,
                listed=tuple(islice(leases, count)) if count else (),
                live=bool(live),
            )
        )
    return out


def _refused(status: int) -> Refused:
    if status == 2:
        return KeyReused("the idempotency key was used before, for another body")
    if status == 3:
        return MailboxFull("the mailbox is full")
    if status == 5:
        return TransactionRefused("another message of its transaction was refused")
    return MessageTooLarge("the message is larger than its mailbox may be")


# ── read ──────────────────────────────────────────────────────────────────────────────────────────────


def pack_log(place: Place) -> bytes:
    """An item of `heads.lua`."""
    return _TWO.pack(len(place.base), len(place.name)) + place.base + place.name


def pack_read(place: Place, after: Position, limit: int, max_bytes: int) -> bytes:
    """An item of `read.lua`."""
    return b"".join(
        (
            _TWO.pack(len(place.base), len(place.name)),
            _whole(after.epoch, 7),
            _whole(after.offset, 7),
            _whole(limit, 7),
            _whole(max_bytes, 7),
            place.base,
            place.name,
        )
    )


def pack_trim(place: Place, through: int) -> bytes:
    """An item of `trim.lua`."""
    return _TWO.pack(len(place.base), len(place.name)) + _whole(through, 7) + place.base + place.name


def unpack_heads(reply: bytes) -> list[Head]:
    """The answers of `heads.lua`."""
    return [Head(Position(Epoch(e), o), *rest) for e, o, *rest in _HEAD.iter_unpack(reply)]


def unpack_page(log: LogKey, found: Sequence[bytes]) -> Page:
    """One page of `read.lua`."""
    epoch, last, count, floor, floor_number, number, previous = _PAGE.unpack(found[0])
    destination = Topic(log.name) if log.user is None else UserQueue(log.user, log.name)
    messages = []
    for entry in found[1:]:
        in_epoch, at, live, _, size, _ = _ENTRY.unpack_from(entry)
        offset = int.from_bytes(at, "big")
        end = _ENTRY.size + size
        sender, headers = _unpack_rest(memoryview(entry)[end:])
        message = Message(
            destination, UserName(sender) if sender is not None else None, headers, entry[_ENTRY.size : end]
        )
        position = Position(Epoch(int.from_bytes(in_epoch, "big")), offset)
        messages.append(StoredMessage(message, position, previous, number, bool(live)))
        previous, number = offset, number + 1
    return Page(messages, Head(Position(Epoch(epoch), last), count, floor, floor_number))


# ── cursors ───────────────────────────────────────────────────────────────────────────────────────────


def pack_look(place: Place, owner: str) -> bytes:
    """An item of `cursors.lua`: how the cursor stands."""
    return _pack_cursor(_LOOK, place, owner, 0, 0, 0)


def pack_confirm(place: Place, item: Confirm) -> bytes:
    """An item of `cursors.lua`: move the cursor forward."""
    at = item.position
    return _pack_cursor(_CONFIRM, place, item.owner, at.epoch, at.offset, item.number)


def pack_attempt(place: Place, owner: str, through: int) -> bytes:
    """An item of `cursors.lua`: raise the watermark."""
    return _pack_cursor(_ATTEMPT, place, owner, 0, through, 0)


def _pack_cursor(what: int, place: Place, owner: str, epoch: int, offset: int, number: int) -> bytes:
    name = owner.encode()
    return b"".join(
        (
            _CURSOR_ITEM.pack(what, len(place.base), len(place.name), len(name)),
            _whole(epoch, 7),
            _whole(offset, 7),
            _whole(number, 7),
            place.base,
            place.name,
            name,
        )
    )


def unpack_cursors(reply: bytes) -> list[Cursor]:
    """The answers of `cursors.lua`."""
    return [Cursor(Position(Epoch(e), o), number, attempted) for e, o, number, attempted in _CURSOR.iter_unpack(reply)]


def pack_pull(place: Place, owner: str, holder: str, seconds: float) -> bytes:
    """An item of `pull.lua`; 0 seconds give the lease back."""
    key = b":".join((place.base, b"p", place.name, quote(owner, safe="").encode()))
    name = holder.encode()
    return _TWO.pack(len(key), len(name)) + _whole(round(seconds * 1000), 7) + key + name


# ── directory ─────────────────────────────────────────────────────────────────────────────────────────


def pack_entry(what: int, home: Place, lease: Lease | None) -> bytes:
    """An item of `entries.lua`."""
    entry = pack_lease(lease) if lease is not None else b""
    return _ENTRY_ITEM.pack(what, len(home.base), len(entry)) + home.base + entry


def pack_node_call(key: bytes, what: str, node: str, incarnation: int, seconds: float) -> bytes:
    """The item of `nodes.lua`."""
    return msgspec.msgpack.encode((key.decode(), what, node, incarnation, round(seconds * 1000)))


def pack_lease(lease: Lease) -> bytes:
    """A lease as the directory's entries name it."""
    return f"{lease.node}/{lease.incarnation}".encode()


@lru_cache(maxsize=1024)
def unpack_lease(entry: bytes) -> Lease:
    """The lease that an entry names."""
    node, _, incarnation = entry.decode().rpartition("/")
    return Lease(NodeId(node), int(incarnation))
