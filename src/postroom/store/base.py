"""The store's contracts: logs, cursors and pull leases, directory; each narrow. An engine may satisfy all of them.

Engines raise StoreUnavailable (nothing was stored) or OutcomeUnknown, and nothing else.
"""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self

from msgspec import Struct

from postroom.channel import Retention
from postroom.errors import Refused
from postroom.identity import Lease as Lease
from postroom.identity import NodeId, UserName
from postroom.message import Message, StoredMessage
from postroom.position import Head, LogKey, Position

SHARED = ""
"""The name of the cursor that all sessions of a user share, but for those that named a device."""


class Append(Struct, frozen=True, gc=False):
    """One message for one log.

    `at_least`: the position's offset must be above it (a hybrid logical clock, see `Position`). `live`: somebody
    follows the log now. `key` is the sender's idempotency key, scoped by log and sender, remembered for
    `IDEMPOTENCY_SECONDS`. `tied`: it stands or falls with the item before it in the batch.
    """

    log: LogKey
    message: Message
    retention: Retention
    at_least: int = 0
    live: bool = False
    key: str | None = None
    tied: bool = False


IDEMPOTENCY_SECONDS = 86_400.0
"""How long an idempotency key is remembered."""

DEVICE_SECONDS = 30 * 86_400.0
"""How long a device's cursor is kept after it was last asked for."""


def message_bytes(message: Message) -> int:
    """What a message counts against `Retention.max_bytes`: its body and headers."""
    return len(message.body) + sum(len(name) + len(value) for name, value in message.headers.items())


class Appended(Struct, frozen=True, gc=False):
    """The answer to an `Append`: where it stands. `duplicate`: its key was seen before, nothing was stored.

    A store that keeps the directory too tells, in the same step, who was `listed` for the log's user right after
    the append. `live`: somebody was listed, or followed the log.
    """

    position: Position
    previous: int
    number: int
    duplicate: bool = False
    listed: Sequence[Lease] = ()
    live: bool = False


class Page(Struct, frozen=True):
    """Part of a log in order, and the log's head at the same instant."""

    messages: Sequence[StoredMessage]
    head: Head


class Cursor(Struct, frozen=True):
    """How far one owner (the user, or a device) of a log has confirmed, and how far it was ever sent.

    `number` is the running number of the last confirmed message, so that what a log dropped above it can be
    counted. `attempted` is a watermark that is raised before messages read from the log are sent: what lies
    above `confirmed` and not above `attempted` may have been seen. `leased`: a pull holds the cursor's lease.
    """

    confirmed: Position
    number: int
    attempted: int
    leased: bool = False


class Confirm(Struct, frozen=True, gc=False):
    """`owner` has everything of `log` up to `position`, the message with the running number `number`."""

    log: LogKey
    owner: str
    position: Position
    number: int


class LogStore(Protocol):
    """Append-only logs."""

    async def append(self, batch: Sequence[Append]) -> Sequence[Appended | Refused]:
        """Store `batch`, in order, and return once it is durable; one answer an item.

        An item whose idempotency key was seen within the window gets the first position (KeyReused where the
        body differs). A log that is full first loses what is confirmed, then refuses (MailboxFull) or drops its
        oldest, as the item's retention says; an item larger than `max_bytes` is MessageTooLarge. Of items that are
        tied together all are stored or none: where one is refused, the others are TransactionRefused. An engine of
        several servers can promise that for each of them alone. Raises StoreUnavailable where nothing of the batch
        was stored, OutcomeUnknown where that is not known.
        """
        ...

    async def read(self, log: LogKey, after: Position, limit: int, max_bytes: int) -> Page:
        """Up to `limit` messages with positions above `after`, compared as pairs, oldest first, at least one
        where there is one, and otherwise no more than `max_bytes` of bodies."""
        ...

    async def heads(self, logs: Sequence[LogKey]) -> Sequence[Head]:
        """The heads of `logs`, in their order; an unknown log's is that of an empty one."""
        ...

    async def trim(self, log: LogKey, through: int) -> None:
        """Remove messages with offsets up to `through`; the floor rises."""
        ...

    async def sweep(self) -> int:
        """Remove what no retention keeps any longer, a bounded number; how many went.

        Confirmed by every known owner and older than `confirmed_seconds`, or older than `seconds`; idempotency
        keys past their window; cursors of devices that were not seen for 30 days.
        """
        ...


class CursorStore(Protocol):
    """How far each owner of a log has confirmed. Never moves back, whatever the order of calls."""

    async def cursor(self, log: LogKey, owner: str) -> Cursor:
        """The owner's cursor. A new owner becomes known by this call.

        A device (`owner` is not SHARED) begins at the log's floor: with all that the log still holds. The shared
        cursor begins at START, so that what was dropped before its first use counts as skipped.
        """
        ...

    async def confirm(self, batch: Sequence[Confirm]) -> None:
        """Move cursors forward; durable on return."""
        ...

    async def attempt(self, log: LogKey, owner: str, through: int) -> None:
        """Raise the owner's `attempted` watermark; durable on return."""
        ...

    async def lease(self, log: LogKey, owner: str, holder: str, seconds: float) -> bool:
        """Take the cursor's short lease for a pull; False while another holder has it."""
        ...

    async def release(self, log: LogKey, owner: str, holder: str) -> None:
        """Give the lease back, if it is still the holder's."""
        ...


class DirectoryStore(Protocol):
    """Who is where. An entry counts for nothing once its node's lease has ended.

    An engine that keeps one is named in the entry point group `postroom.directories` too. Raises
    StoreUnavailable, and LeaseLost or LeaseTaken where said.
    """

    async def join(self, node: NodeId, seconds: float) -> Lease:
        """A new incarnation of `node`, live for `seconds`. An older one of the same id loses its lease."""
        ...

    async def renew(self, lease: Lease, seconds: float) -> Sequence[Lease]:
        """Live on for `seconds` from now; all live leases, one's own included.

        Raises LeaseLost where it has ended, LeaseTaken where another incarnation has taken the id over.
        """
        ...

    async def retire(self, lease: Lease) -> None:
        """End the lease, if it is still there."""
        ...

    async def enter(self, lease: Lease, users: Sequence[UserName]) -> None:
        """From now on `lease` is found where these users are looked for; again is the same as once."""
        ...

    async def leave(self, lease: Lease, users: Sequence[UserName]) -> None:
        """Take just these entries away, nobody else's."""
        ...

    async def locate(self, users: Sequence[UserName]) -> Mapping[UserName, Sequence[Lease]]:
        """The entries of `users`, those of dead nodes included: the caller knows the live leases."""
        ...


class Store(LogStore, CursorStore, Protocol):
    """An engine that keeps logs and cursors. Opened and closed as a context manager, once.

    An engine's class is its entry point in the group `postroom.stores`, called with the URL of the setting.
    `durable` tells operators whether what it accepts survives the process.
    """

    durable: bool

    async def __aenter__(self) -> Self:
        """Open it: take locks, migrate, recover. Raises StoreUnavailable with a sentence for the operator."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish what was accepted, then close."""
        ...
