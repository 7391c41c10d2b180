"""The backplane's contract: bytes between nodes, at most once."""

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import NewType, Protocol

from msgspec import Struct

from postroom.errors import ConfigurationError

Subject = NewType("Subject", str)
"""`node.{id}`, `all`, `topics`, `topic.{destination}` or `user.{name}`; an engine maps it to what it has."""


class Traits(Struct, frozen=True):
    """In what engines may differ. Used only to save work: correctness assumes the weakest engine."""

    max_payload_bytes: int
    keeps_order_across_reconnect: bool
    survives_restart: bool


class Backplane(Protocol):
    """Carries bytes between nodes: at most once, in order per publisher and subject.

    An engine's class is its entry point in the group `postroom.backplanes`, called with the URL of the setting.
    The node runs `run` in its task group. It re-connects by itself, after a while that grows and varies, and ends
    only by cancellation, or by raising what no retry can mend. `received` is called on the loop, one call a
    payload; `interrupted` after each re-connection, once all subscriptions are in force again and before any
    later payload: the node then assumes a loss.
    """

    traits: Traits

    async def run(self, received: Callable[[Subject, bytes], None], interrupted: Callable[[], None]) -> None:
        """Receive until cancelled."""
        ...

    async def subscribe(self, subjects: Sequence[Subject]) -> None:
        """Return once these are in force. They stay wanted, whatever happens to the connection.

        Raises BackplaneUnavailable where they are not in force now; they will be after the next re-connection.
        """
        ...

    async def unsubscribe(self, subjects: Sequence[Subject]) -> None:
        """These are no longer wanted; something under way may still come."""
        ...

    async def publish(self, batch: Sequence[tuple[Subject, bytes]]) -> None:
        """Send each payload to whoever is subscribed, oneself included. Raises BackplaneUnavailable: some of the
        batch may have been sent."""
        ...

    async def reconnect(self) -> None:
        """Drop what connections there are, and build them up again: they are open and bring nothing."""
        ...


def open_backplane(url: str) -> Backplane:
    """The backplane that `url` names, not yet running. Raises ConfigurationError for a scheme that no engine serves."""
    scheme = url.partition(":")[0]
    engines = {entry.name: entry for entry in entry_points(group="postroom.backplanes")}
    if ":" not in url or scheme not in engines:
        known = ", ".join(f"{name}:" for name in sorted(engines))
        raise ConfigurationError(f"no backplane serves {scheme + ':' if ':' in url else url!r}: use one of {known}")
    backplane: Backplane = engines[scheme].load()(url)
    return backplane


def serves(url: str) -> bool:
    """Whether a backplane's engine is there for the URL's scheme."""
    scheme, colon, _ = url.partition(":")
    return bool(colon) and any(entry.name == scheme for entry in entry_points(group="postroom.backplanes"))
