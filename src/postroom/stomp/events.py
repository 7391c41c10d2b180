"""What a client asked for: one frozen struct a command. `receipt` is the receipt it wants, or None."""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

AckMode = Literal["auto", "client", "client-individual"]


class Connect(Struct, frozen=True):
    """CONNECT or STOMP, its version and heart-beat negotiated already."""

    host: str | None
    login: str | None
    passcode: str | None
    headers: Mapping[str, str]


class Send(Struct, frozen=True, gc=False):
    """SEND. `headers` are all but destination, content-length, receipt and transaction; the receiver's to keep."""

    destination: str
    headers: dict[str, str]
    body: bytes
    receipt: str | None = None


class Subscribe(Struct, frozen=True):
    """SUBSCRIBE. `anonymous`: STOMP 1.0 without an id; `id` is then the destination."""

    id: str
    destination: str
    ack: AckMode
    headers: Mapping[str, str]
    receipt: str | None = None
    anonymous: bool = False


class Unsubscribe(Struct, frozen=True):
    """UNSUBSCRIBE; of an unknown id too."""

    id: str
    receipt: str | None = None


class Ack(Struct, frozen=True):
    """ACK: by `id` (1.2), by subscription and message id (1.1), or by message id (1.0)."""

    id: str | None
    subscription: str | None
    message_id: str | None
    receipt: str | None = None


class Nack(Struct, frozen=True):
    """NACK: as `Ack`."""

    id: str | None
    subscription: str | None
    message_id: str | None
    receipt: str | None = None


class Done(Struct, frozen=True):
    """Nothing is left to do but the receipt: BEGIN, ABORT, and what was taken into a transaction."""

    receipt: str


class Commit(Struct, frozen=True):
    """COMMIT: what the transaction holds, in order."""

    events: tuple[Send | Ack | Nack, ...]
    receipt: str | None = None


class Disconnect(Struct, frozen=True):
    """DISCONNECT."""

    receipt: str | None = None


class Violation(Struct, frozen=True):
    """The client broke the protocol: ERROR with `summary`, then the close. Nothing comes after it."""

    summary: str
    receipt: str | None = None
    detail: str = ""
    headers: dict[str, str] | None = None


Event = Connect | Send | Subscribe | Unsubscribe | Ack | Nack | Done | Commit | Disconnect | Violation
