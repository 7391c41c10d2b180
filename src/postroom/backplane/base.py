"""The backplane's contract: bytes between nodes, at most once."""

from collections.abc import Callable
from typing import NewType, Protocol

from msgspec import Struct

Subject = NewType("Subject", str)
"""`node.{id}`, `all`, `topic.{destination}` or `user.{name}`; an engine maps it to what it has."""


class Traits(Struct, frozen=True):
    """In what engines may differ. Used only to save work: correctness assumes the weakest engine."""

    max_payload_bytes: int
    keeps_order_across_reconnect: bool
    survives_restart: bool


class Backplane(Protocol):
    """Carries bytes between nodes: at most once, in order per publisher and subject.

    The node runs `run` in its task group. It re-connects by itself and ends only by cancellation,
    or by raising what no retry can mend. `received` is called on the loop, one call a payload;
    `interrupted` after each re-connection, before any later payload: the node then assumes a loss.
    """

    traits: Traits

    async def run(self, received: Callable[[Subject, bytes], None], interrupted: Callable[[], None]) -> None:
        """Receive until cancelled."""
        ...

    async def subscribe(self, subject: Subject) -> None:
        """Return once the subscription is in force."""
        ...

    async def unsubscribe(self, subject: Subject) -> None:
        """Return once nothing more of `subject` will be handed over."""
        ...

    async def publish(self, subject: Subject, payload: bytes) -> None:
        """Send to whoever is subscribed, oneself included. Raises BackplaneUnavailable."""
        ...
