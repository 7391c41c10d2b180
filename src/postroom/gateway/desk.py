"""What all gateways of a node share."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from postroom import stomp
from postroom.auth import Authentication
from postroom.channel import ChannelRegistry
from postroom.clock import Clock
from postroom.destination import Destinations
from postroom.handlers import Handlers
from postroom.hub import Hub
from postroom.interest import Interest
from postroom.mailbox import Mailbox, Spawn
from postroom.metrics import Metrics
from postroom.outbox import Flusher
from postroom.router import Router
from postroom.transport.base import Handshake
from postroom.wheel import Wheel


class Limits(Struct, frozen=True):
    """What one session may use, and how long it may take."""

    frame: stomp.Limits = stomp.Limits()
    heart_beat: tuple[int, int] = (10_000, 10_000)
    subscriptions: int = 256
    sessions_per_user: int = 10_000
    frames_per_second: int = 100_000
    connect_seconds: float = 10.0
    write_buffer_bytes: int = 1024 * 1024
    pending_appends: int = 1024
    pending_append_bytes: int = 1_048_576
    transactions: int = 10
    in_flight_messages: int = 1000
    in_flight_bytes: int = 1024 * 1024
    probe_seconds: float = 30.0
    idle_probe_seconds: float = 60.0
    append_missing_nul: bool = False


class Desk:
    """The parts of a node that its gateways call, and the count of what they made."""

    def __init__(
        self,
        *,
        name: str,
        hub: Hub[Any],
        router: Router,
        mailbox: Mailbox,
        destinations: Destinations,
        channels: ChannelRegistry,
        handlers: Handlers,
        authentication: Authentication,
        flusher: Flusher,
        wheel: Wheel,
        clock: Clock,
        metrics: Metrics,
        limits: Limits,
        spawn: Spawn,
        client_of: Callable[[Handshake], str],
        interest: Interest | None = None,
    ) -> None:
        self.interest = interest
        self.name = name
        self.hub = hub
        self.router = router
        self.mailbox = mailbox
        self.destinations = destinations
        self.channels = channels
        self.handlers = handlers
        self.authentication = authentication
        self.flusher = flusher
        self.wheel = wheel
        self.clock = clock
        self.metrics = metrics
        self.limits = limits
        self.spawn = spawn
        self.client_of = client_of
        self.open: set[Any] = set()
        self.addresses: Counter[str] = Counter()
        self._messages = 0
        self._prefix = f"{int(clock.wall() * 1000):x}"

    def left(self, address: str) -> None:
        """A client from `address` is gone."""
        self.addresses[address] -= 1
        if self.addresses[address] <= 0:
            del self.addresses[address]

    def message_id(self) -> str:
        """A name for a transient message, unlike any other of this node."""
        self._messages += 1
        return f"{self._prefix}.{self._messages}"
