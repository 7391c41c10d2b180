"""What becomes of a client's SENDs on their way to the store."""

from typing import Final, Protocol

from postroom import stomp
from postroom.errors import NotAllowed, PostroomError
from postroom.identity import Principal, UserName
from postroom.message import Message
from postroom.router import Route
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


class Pending:
    """One SEND on its way to the store, which calls it with the outcome."""

    __slots__ = ("_event", "_sender", "_ticket")

    def __init__(self, sender: Sender, event: stomp.Send, ticket: Ticket) -> None:
        self._sender = sender
        self._event = event
        self._ticket = ticket

    def __call__(self, outcome: Appended | PostroomError) -> None:
        """Tell the sender."""
        self._sender.settled(self._ticket, self._event, outcome)


def own_headers(event: stomp.Send) -> dict[str, str]:
    """The headers that are the client's to set."""
    headers = event.headers
    if RESERVED.isdisjoint(headers):
        return headers
    return {name: value for name, value in headers.items() if name not in RESERVED}


def message_of(route: Route, event: stomp.Send, sender: UserName, message_id: str = "") -> Message:
    """What `sender` sends there."""
    headers = own_headers(event)
    headers["sender"] = sender
    return Message(route.destination, sender, headers, event.body, message_id)


def permit(route: Route, event: stomp.Send, principal: Principal) -> None:
    """Raise NotAllowed where the channel does not let `principal` send."""
    if not route.open and not route.channel.send.allows(principal):
        raise NotAllowed(f"you may not send to {event.destination}")
