"""What nodes say to one another: items in envelopes, as MessagePack arrays.

The version comes first, and readers take more elements than they know: old and new nodes live side by side
while a cluster is upgraded.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from postroom.destination import Destination, Topic, UserQueue
from postroom.errors import PostroomError
from postroom.identity import UserName
from postroom.message import Message, StoredMessage
from postroom.position import Epoch, LogKey, Position

VERSION: Final = 1


class Tell(Struct, frozen=True, array_like=True, tag="t", gc=False):
    """A message was stored. `body` None: it was too large to travel; the log has it."""

    user: str | None
    name: str
    sender: str | None
    headers: dict[str, str]
    body: bytes | None
    epoch: int
    offset: int
    previous: int
    number: int
    live: bool

    @property
    def log(self) -> LogKey:
        """Where it was stored."""
        return LogKey(UserName(self.user) if self.user is not None else None, self.name)

    @property
    def position(self) -> Position:
        """Where in that log."""
        return Position(Epoch(self.epoch), self.offset)

    @property
    def stored(self) -> StoredMessage:
        """The message; its body must have travelled."""
        assert self.body is not None
        message = Message(_destination(self.user, self.name), _user(self.sender), self.headers, self.body)
        return StoredMessage(message, self.position, self.previous, self.number, self.live)


class Cast(Struct, frozen=True, array_like=True, tag="c", gc=False):
    """A transient message. `hops`: how often it was sent on, because its user had moved."""

    user: str | None
    name: str
    sender: str | None
    headers: dict[str, str]
    body: bytes
    id: str
    hops: int = 0

    @property
    def message(self) -> Message:
        """As it came from its sender."""
        destination = _destination(self.user, self.name)
        return Message(destination, _user(self.sender), self.headers, self.body, self.id)


class Miss(Struct, frozen=True, array_like=True, tag="m", gc=False):
    """The user of a transient message is not here: look again where it is."""

    cast: Cast


class Beat(Struct, frozen=True, array_like=True, tag="b", gc=False):
    """How far the sender has counted on the subjects that it published to lately. It is its canary too.

    `routing`: the scheme by which it finds users; empty of a node that does not say.
    """

    counters: dict[str, int]
    routing: str = ""


class Ask(Struct, frozen=True, array_like=True, tag="a", gc=False):
    """Does anybody on your node follow this log for this owner? Answered with `Answer` under the same number."""

    number: int
    user: str | None
    name: str
    owner: str


class Answer(Struct, frozen=True, array_like=True, tag="r", gc=False):
    """The answer to an `Ask`."""

    number: int
    yes: bool


class Call(Struct, frozen=True, array_like=True, tag="q", gc=False):
    """A client's HTTP request for a session that lives on your node. Its answer comes in `Part`s with its number."""

    number: int
    method: str
    path: str
    query: str
    headers: dict[str, str]
    peer_address: str
    secure: bool
    body: bytes


class Taken(Struct, frozen=True, array_like=True, tag="k", gc=False):
    """Your call is being answered."""

    number: int


class Part(Struct, frozen=True, array_like=True, tag="p", gc=False):
    """The next part of the answer to your call, counted from 1; the first has status and headers."""

    number: int
    sequence: int
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    last: bool


class Got(Struct, frozen=True, array_like=True, tag="g", gc=False):
    """Of the answer to my call so many parts are written to the client. Said again while it reads slowly."""

    number: int
    written: int


class Gone(Struct, frozen=True, array_like=True, tag="x", gc=False):
    """The client of my call has left, or its answer has a hole: the answer is of no use any more."""

    number: int


Item = Tell | Cast | Miss | Beat | Ask | Answer | Call | Taken | Part | Got | Gone


class Head(Struct, frozen=True, array_like=True, gc=False):
    """Who published an envelope: the node, its incarnation, its counter for the subject, and the highest offset
    that it has seen in any log (a hybrid logical clock)."""

    version: int
    node: str
    incarnation: int
    counter: int
    highest: int


class Envelope(Head, frozen=True, array_like=True, gc=False):
    """Everything that one node published to one subject in one turn of its loop."""

    items: Sequence[Item]


class _Packed(Head, frozen=True, array_like=True, gc=False):
    items: Sequence[msgspec.Raw]


class Unreadable(PostroomError):
    """A payload that no version of Postroom known here has written."""


_encode = msgspec.msgpack.Encoder().encode
_envelope = msgspec.msgpack.Decoder(Envelope)


def pack(item: Item) -> bytes:
    """An item, ready for any number of envelopes."""
    return _encode(item)


def seal(node: str, incarnation: int, counter: int, highest: int, items: Sequence[bytes]) -> bytes:
    """The payload that carries packed items."""
    return _encode(_Packed(VERSION, node, incarnation, counter, highest, [msgspec.Raw(item) for item in items]))


def unseal(payload: bytes) -> Envelope:
    """The envelope. Raises Unreadable."""
    try:
        envelope = _envelope.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(f"a payload of {len(payload)} bytes cannot be read: {error}") from None
    if envelope.version != VERSION:
        raise Unreadable(f"a payload of version {envelope.version} cannot be read here")
    return envelope


def tell(stored: StoredMessage, log: LogKey, *, body: bool = True) -> Tell:
    """What other nodes are told of `stored`."""
    message, position = stored.message, stored.position
    return Tell(
        log.user,
        log.name,
        message.sender,
        _plain(message.headers),
        message.body if body else None,
        position.epoch,
        position.offset,
        stored.previous,
        stored.number,
        stored.live,
    )


def cast(message: Message) -> Cast:
    """A transient message for other nodes."""
    destination = message.destination
    user = destination.user if type(destination) is UserQueue else None
    return Cast(user, destination.name, message.sender, _plain(message.headers), message.body, message.id)


def _plain(headers: Mapping[str, str]) -> dict[str, str]:
    return headers if type(headers) is dict else dict(headers)


def _destination(user: str | None, name: str) -> Destination:
    return Topic(name) if user is None else UserQueue(UserName(user), name)


def _user(name: str | None) -> UserName | None:
    return UserName(name) if name is not None else None
