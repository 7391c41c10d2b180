"""One subscription: what of it hub and mailbox need, how its frames are encoded, and what it has in flight."""

from collections.abc import Callable, Hashable
from typing import Protocol

from postroom.delivery.tail import Tail
from postroom.delivery.window import AckMode, Window
from postroom.destination import Destination, Topic
from postroom.message import Message, StoredMessage
from postroom.outbox import Outbox
from postroom.position import START, Head, LogKey, Position
from postroom.stomp import encode_message, message_start
from postroom.stomp.frame import Version
from postroom.transport.base import Framing


class Subscriber(Protocol):
    """What the hub needs of a subscription. It knows no session and no transport."""

    @property
    def encoding(self) -> Hashable:
        """Equal keys, equal frames: a message is encoded once for all subscribers with the same key."""
        ...

    def encode(self, message: Message) -> bytes:
        """The bytes for the wire."""
        ...

    @property
    def put(self) -> Callable[[bytes], None]:
        """Takes what `encode` made, or that of an equal subscriber, into the outbox; never blocks."""
        ...


class Subscription:
    """A STOMP subscription of one session.

    `destination` is as the client wrote it: MESSAGE frames of user destinations carry it back. `anonymous`
    subscriptions (STOMP 1.0, without an id) put no `subscription` header.
    """

    __slots__ = (
        "_anonymous",
        "_framing",
        "_own",
        "_start",
        "_started_for",
        "_version",
        "ack",
        "encoding",
        "id",
        "put",
        "target",
    )

    def __init__(
        self,
        id: str,
        destination: str,
        target: Destination,
        *,
        ack: AckMode,
        version: Version,
        framing: Framing,
        outbox: Outbox,
        anonymous: bool = False,
    ) -> None:
        self.id = id
        self.target = target
        self.ack = ack
        self._own = None if isinstance(target, Topic) else destination
        self._version = version
        self._framing = framing
        self._anonymous = anonymous
        self.put: Callable[[bytes], None] = outbox.put
        self._start = self._start_for(target.name)
        self.encoding: Hashable = (id, self._own, version, framing, ack == "auto")

    def encode(self, message: Message) -> bytes:
        """The MESSAGE frame of a transient message."""
        start = self._start
        if message.destination.name is not self._started_for and self._own is None:
            start = self._start_again(message.destination.name)
        ack = None if self.ack == "auto" else f"{message.id}@{self.id}"
        return self._framing(encode_message(self._version, start, message.id, message.headers, message.body, ack))

    def encode_stored(
        self,
        stored: StoredMessage,
        *,
        redelivered: bool = False,
        skipped: int = 0,
        recovered: bool | None = None,
    ) -> bytes:
        """The MESSAGE frame of a stored message: `offset`, `epoch` and `previous` tell its place in the log.

        `redelivered` means that it may have been seen; `skipped` counts what was dropped before it; `recovered`
        tells, once, whether a topic's history goes on where the client had stopped.
        """
        message, position = stored.message, stored.position
        epoch, offset = position.epoch, position.offset
        more = f"\nepoch:{epoch}\noffset:{offset}\nprevious:{stored.previous}"
        if redelivered:
            more += "\nredelivered:true"
        if skipped:
            more += f"\nskipped:{skipped}"
        if recovered is not None:
            more += f"\nrecovered:{'true' if recovered else 'false'}"
        start = self._start
        if message.destination.name is not self._started_for and self._own is None:
            start = self._start_again(message.destination.name)
        message_id = f"{epoch}-{offset}"
        ack = None if self.ack == "auto" else f"{message_id}@{self.id}"
        return self._framing(encode_message(self._version, start, message_id, message.headers, message.body, ack, more))

    def _start_again(self, destination: str) -> str:
        if destination != self._started_for:
            self._start = self._start_for(destination)
        return self._start

    def _start_for(self, destination: str) -> str:
        """The first lines of a MESSAGE; most subscriptions need one kind of them."""
        self._started_for = destination
        return message_start(self._version, "" if self._anonymous else self.id, self._own or destination)


class Follower:
    """A subscription's place in a log: the tail that it follows, and the window of what is not confirmed.

    `owner` names the cursor. None follows without one: a topic's history, whose client keeps its position and
    may name it (`after`); `recovered` and `head` then tell what came of that.
    """

    __slots__ = (
        "_told",
        "after",
        "attempted",
        "began",
        "closed",
        "head",
        "log",
        "outbox",
        "owner",
        "persisted",
        "proof_handled",
        "recovered",
        "refusals",
        "subscription",
        "tail",
        "window",
    )

    def __init__(
        self,
        subscription: Subscription,
        log: LogKey,
        owner: str | None,
        *,
        window: Window,
        outbox: Outbox,
        after: Position | None = None,
        proof_handled: bool = False,
    ) -> None:
        self.subscription = subscription
        self.log = log
        self.owner = owner
        self.window = window
        self.outbox = outbox
        self.after = after
        self.proof_handled = proof_handled
        self.tail = Tail()
        self.attempted = 0  # as the store had it when this follower began
        self.persisted = 0
        self.began = START  # the log's end when this follower began, where other nodes may have sent what is below
        self.closed = False
        self.recovered: bool | None = None
        self.head: Head | None = None
        self.refusals: dict[int, int] | None = None
        self._told = False

    @property
    def room(self) -> int:
        """How many more messages may be sent now."""
        return 0 if self.outbox.crowded else self.window.room

    def send(self, stored: StoredMessage, *, redelivered: bool = False, skipped: int = 0) -> None:
        """Put the MESSAGE frame into the outbox, and count it as in flight where a cursor waits for proof."""
        recovered = None if self._told else self.recovered
        self._told = self._told or recovered is not None
        encode = self.subscription.encode_stored
        self.subscription.put(encode(stored, redelivered=redelivered, skipped=skipped, recovered=recovered))
        if self.owner is not None:
            self.window.sent(stored)

    def send_shared(self, stored: StoredMessage, frames: dict[Hashable, bytes]) -> None:
        """As `send`, live: `frames` keeps what was encoded for equal subscriptions of the same message."""
        if self.recovered is not None and not self._told:
            self.send(stored)
            return
        subscription = self.subscription
        frame = frames.get(subscription.encoding)
        if frame is None:
            frame = subscription.encode_stored(stored)
            frames[subscription.encoding] = frame
        subscription.put(frame)
        if self.owner is not None:
            self.window.sent(stored)

    def repeat(self, stored: StoredMessage) -> None:
        """Send once more what is in flight already."""
        self.subscription.put(self.subscription.encode_stored(stored, redelivered=True))
