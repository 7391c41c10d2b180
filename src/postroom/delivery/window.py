"""What of one subscription is sent and not yet confirmed."""

from collections import deque
from typing import Literal

from msgspec import Struct

from postroom.message import StoredMessage
from postroom.position import Position

AckMode = Literal["auto", "client", "client-individual"]


class Proven(Struct, frozen=True, gc=False):
    """The end of the contiguous run of proven messages: where the cursor may move."""

    position: Position
    number: int


class Window:
    """The messages in flight of one durable subscription, in order, and what proof of receipt makes of them.

    The cursor moves to the end of the contiguous proven run, never to the highest acknowledgement. At most
    `max_messages` and `max_bytes` are in flight; one message is let through whatever its size.
    """

    __slots__ = ("_acknowledged", "_bytes", "_flight", "_max_bytes", "_max_messages", "_mixed")

    def __init__(self, *, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._flight: deque[tuple[StoredMessage, int]] = deque()
        self._acknowledged: set[int] | None = None
        self._bytes = 0
        self._mixed = False  # offsets of two epochs are in flight, and do not grow

    @property
    def room(self) -> int:
        """How many more messages may be sent; 0 while the bound of bytes is reached."""
        return self._max_messages - len(self._flight) if self._bytes < self._max_bytes else 0

    @property
    def room_bytes(self) -> int:
        """How many more bytes may be sent."""
        return max(0, self._max_bytes - self._bytes)

    @property
    def last(self) -> int:
        """The offset of the newest message in flight; 0: none is."""
        return self._flight[-1][0].position.offset if self._flight else 0

    def sent(self, stored: StoredMessage) -> None:
        """`stored` is on its way."""
        size = len(stored.message.body)
        self._bytes += size
        if not self._flight:
            self._mixed = False
        elif stored.position.offset <= self._flight[-1][0].position.offset:
            self._mixed = True
        self._flight.append((stored, size))

    def holds(self, offset: int) -> bool:
        """Whether the message with this offset is in flight and not acknowledged."""
        return any(stored.position.offset == offset for stored, _ in self._flight) and not (
            self._acknowledged and offset in self._acknowledged
        )

    def prove(self, through: int) -> Proven | None:
        """Everything up to the offset `through` was received (PONG, cumulative ACK). Where the cursor may go."""
        flight = self._flight
        stored = None
        count = self._until(through) if self._mixed else -1
        while flight and (count > 0 or (count < 0 and flight[0][0].position.offset <= through)):
            count -= count > 0
            stored, size = flight.popleft()
            self._bytes -= size
            if self._acknowledged:
                self._acknowledged.discard(stored.position.offset)
        if self._acknowledged:
            return self._run() or (Proven(stored.position, stored.number) if stored else None)
        return Proven(stored.position, stored.number) if stored else None

    def prove_one(self, offset: int) -> Proven | None:
        """The one message at `offset` was received (`client-individual`). None while an older one is missing."""
        if self._acknowledged is None:
            self._acknowledged = set()
        if self.holds(offset):
            self._acknowledged.add(offset)
        return self._run()

    def unproven(self, through: int) -> list[StoredMessage]:
        """The messages in flight up to `through`, for a cumulative NACK."""
        return [stored for stored, _ in self._flight if stored.position.offset <= through]

    def _until(self, offset: int) -> int:
        """How many messages in flight reach up to the one at `offset`."""
        reach = [n for n, (stored, _) in enumerate(self._flight, 1) if stored.position.offset == offset]
        return reach[-1] if reach else 0

    def _run(self) -> Proven | None:
        stored = None
        while self._flight and self._acknowledged and self._flight[0][0].position.offset in self._acknowledged:
            stored, size = self._flight.popleft()
            self._bytes -= size
            self._acknowledged.discard(stored.position.offset)
        return Proven(stored.position, stored.number) if stored else None
