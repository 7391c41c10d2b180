"""Who and what: names of nodes, their leases, sessions, subscriptions and users; the principal of a session."""

from typing import NewType

from msgspec import Struct

NodeId = NewType("NodeId", str)
SessionId = NewType("SessionId", str)
SubscriptionId = NewType("SubscriptionId", str)
UserName = NewType("UserName", str)


class Lease(Struct, frozen=True):
    """One start of a node: its id, and an incarnation that the directory counted up for this start."""

    node: NodeId
    incarnation: int


class Principal(Struct, frozen=True):
    """An authenticated user, and until when that holds.

    `name` is canonical (NFC, no control characters, 1 to 255 characters); it is the key of the user's mailboxes.
    `expires_at` is in seconds since 1970 (a token's `exp`), None for credentials that do not expire.
    """

    name: UserName
    roles: frozenset[str] = frozenset()
    expires_at: float | None = None
