"""What becomes of a client's SENDs on their way to the store, alone and in transactions."""

from typing import Final, Protocol

from postroom import stomp
from postroom.errors import PostroomError
from postroom.session import Ticket
from postroom.store.base import Appended

RESERVED: Final = frozenset(
    {
        "ack",
        "epoch",
        "message-id",
        "offset",
        "previous",
        "recovered",
        "redelivered",
        "sender",
        "skipped",
        "subscription",
        "timestamp",
        "user-name",
    }
)
"""Headers that are the server's to set: a client's own are dropped."""


class Sender(Protocol):
    """Whose SEND it is."""

    def settled(self, ticket: Ticket, event: stomp.Send, outcome: Appended | PostroomError) -> None:
        """It is stored, or it is not."""
        ...


class Transaction:
    """A COMMIT whose SENDs are being stored: its receipt leaves when all of them are."""

    __slots__ = ("_failed", "_open", "_ticket")

    def __init__(self) -> None:
        self._open = 0
        self._failed = False
        self._ticket: Ticket | None = None

    def begin(self) -> None:
        """One more SEND is on its way."""
        self._open += 1

    def part(self, outcome: Appended | PostroomError) -> None:
        """One of them is stored, or it is not."""
        self._open -= 1
        self._failed = self._failed or not isinstance(outcome, Appended)
        self._settle()

    def committed(self, ticket: Ticket) -> None:
        """All of them are on their way: `ticket` waits for them."""
        self._ticket = ticket
        self._settle()

    def _settle(self) -> None:
        if self._ticket is not None and self._open == 0:
            if self._failed:
                self._ticket.refuse()
            else:
                self._ticket.settle()


class Pending:
    """One SEND on its way to the store, which calls it with the outcome."""

    __slots__ = ("_event", "_sender", "_ticket", "_transaction")

    def __init__(self, sender: Sender, event: stomp.Send, ticket: Ticket, transaction: Transaction | None) -> None:
        self._sender = sender
        self._event = event
        self._ticket = ticket
        self._transaction = transaction
        if transaction is not None:
            transaction.begin()

    def __call__(self, outcome: Appended | PostroomError) -> None:
        """Tell the sender, then the transaction that it is part of."""
        self._sender.settled(self._ticket, self._event, outcome)
        if self._transaction is not None:
            self._transaction.part(outcome)
