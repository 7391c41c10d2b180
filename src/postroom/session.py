"""The state of one STOMP connection: who it is, what it subscribes to, which receipts it waits for."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from postroom.backplane.base import Subject
from postroom.delivery.proof import Prober
from postroom.destination import Pattern
from postroom.errors import ProtocolViolation
from postroom.identity import Principal, SessionId
from postroom.outbox import Outbox
from postroom.store.base import SHARED
from postroom.subscription import Follower, Subscription

_MAX_DEVICE: Final = 64


class Entry:
    """A subscription, and where it is entered: under a hub key, a pattern, or as a follower of a log.

    `followed` is the subject that this node follows on the backplane for it, `visible` is done once it does; both
    are None where nothing had to be done.
    """

    __slots__ = ("followed", "follower", "key", "pattern", "subscription", "visible")

    def __init__(
        self,
        subscription: Subscription,
        *,
        key: str | None = None,
        pattern: Pattern | None = None,
        follower: Follower | None = None,
    ) -> None:
        self.subscription = subscription
        self.key = key
        self.pattern = pattern
        self.follower = follower
        self.followed: Subject | None = None
        self.visible: asyncio.Future[None] | None = None


class Ticket:
    """A place in the line of receipts. Its receipt leaves once it is settled and all before it have gone."""

    __slots__ = ("headers", "line", "receipt", "settled", "size", "then")

    def __init__(self, line: "Receipts", receipt: str | None, size: int) -> None:
        self.line = line
        self.receipt = receipt
        self.size = size
        self.settled = False
        self.headers: dict[str, str] | None = None
        self.then: Callable[[], None] | None = None  # called once the receipt has left

    def settle(self) -> None:
        """What the frame asked for is done."""
        self.settled = True
        self.line.advance()

    def refuse(self) -> None:
        """It is not done and will not be: no receipt."""
        self.receipt = None
        self.settle()


class Receipts:
    """Lets receipts leave in the order of the frames that asked for them.

    A receipt says that its frame was handled, and so that all frames before it were: it waits for those.
    """

    __slots__ = ("_bytes", "_line", "_send")

    def __init__(self, send: Callable[[str, dict[str, str] | None], None]) -> None:
        self._line: deque[Ticket] = deque()
        self._bytes = 0
        self._send = send

    def __len__(self) -> int:
        return len(self._line)

    def exceed(self, frames: int, size: int) -> bool:
        """Whether more than so many frames wait, or frames of more than `size` bytes."""
        return len(self._line) > frames or self._bytes > size

    def give(self, receipt: str) -> None:
        """The frame is handled already."""
        if self._line:
            self.hold(receipt).settled = True
        else:
            self._send(receipt, None)

    def hold(self, receipt: str | None, size: int = 0) -> Ticket:
        """The frame will be handled later, and takes `size` bytes until then."""
        ticket = Ticket(self, receipt, size)
        self._line.append(ticket)
        self._bytes += size
        return ticket

    def advance(self) -> None:
        """Let go what is settled at the head of the line."""
        line = self._line
        while line and line[0].settled:
            ticket = line.popleft()
            self._bytes -= ticket.size
            if ticket.receipt is not None:
                self._send(ticket.receipt, ticket.headers)
            if ticket.then is not None:
                ticket.then()


class Session:
    """One client that has authenticated.

    `owner` names the cursor that its durable subscriptions move: that of its device, or the user's shared one.
    """

    __slots__ = ("entries", "id", "outbox", "owner", "principal", "prober", "receipts")

    def __init__(
        self,
        id: SessionId,
        principal: Principal,
        *,
        outbox: Outbox,
        receipts: Receipts,
        device: str | None,
    ) -> None:
        self.id = id
        self.principal = principal
        self.outbox = outbox
        self.receipts = receipts
        self.owner = device if device is not None else SHARED
        self.entries: dict[str, Entry] = {}
        self.prober: Prober[Follower] | None = None

    def follower(self, subscription: str) -> Follower | None:
        """The follower of the subscription with this id, if it follows a log."""
        entry = self.entries.get(subscription)
        return entry.follower if entry is not None else None

    def unproven(self) -> list[tuple[Follower, int]]:
        """The followers with `ack:auto` that have messages in flight, each with the newest one's offset."""
        return [
            (follower, last)
            for entry in self.entries.values()
            if (follower := entry.follower) is not None
            and follower.owner is not None
            and entry.subscription.ack == "auto"
            and (last := follower.window.last)
        ]


def device_of(headers: Mapping[str, str]) -> str | None:
    """The device that a CONNECT frame names. Raises ProtocolViolation."""
    device = headers.get("device")
    if device is None:
        return None
    if not 0 < len(device) <= _MAX_DEVICE or not device.isprintable():
        raise ProtocolViolation(f"a device name has 1 to {_MAX_DEVICE} printable characters")
    return device
