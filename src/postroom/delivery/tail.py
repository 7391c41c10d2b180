"""What one subscription does with what it hears of its log."""

from collections.abc import Sequence

from msgspec import Struct

from postroom.message import StoredMessage
from postroom.position import START, Epoch, Head, Position


class Deliver(Struct, frozen=True, gc=False):
    """Send `message` now; it is the one after the last one sent."""

    message: StoredMessage


class Fetch(Struct, frozen=True, gc=False):
    """Read the log after `after`, and come back with `Tail.page`."""

    after: Position


Step = Deliver | Fetch | None


class Tail:
    """Follows one log for one subscription.

    Announcements may be lost, repeated or reordered. Each message is handed out once, in append order, or
    reported as skipped, as soon as a later message or a comparison of heads is announced. While a `Fetch` is
    under way, and while the caller has no room, announcements are only remembered. Positions are compared as
    pairs: after a fail-over that lost the log's end, an offset of the new epoch may be lower than the last sent.
    """

    __slots__ = ("_epoch", "_fetching", "_heard", "_more", "_number", "_offset")

    def __init__(self) -> None:
        self._epoch = Epoch(0)
        self._offset = 0
        self._number = 0
        self._heard = START
        self._more = False  # something was announced while it read
        self._fetching = True  # until `begin` and the first pages: what is announced meanwhile is read

    @property
    def sent(self) -> Position:
        """The position of the last message handed out or skipped."""
        return Position(self._epoch, self._offset)

    @property
    def behind(self) -> bool:
        """Whether the log is known to hold more than was handed out."""
        heard = self._heard
        return heard.epoch > self._epoch or (heard.epoch == self._epoch and heard.offset > self._offset)

    def begin(self, after: Position, number: int) -> None:
        """Start behind `after`, whose message had the running number `number`: the cursor."""
        self._epoch, self._offset, self._number = after.epoch, after.offset, number

    def announce(self, stored: StoredMessage, *, ready: bool) -> Step:
        """A message was appended. `ready`: there is room, and the store knows that it may be sent now."""
        position = stored.position
        epoch, offset = position.epoch, position.offset
        if epoch <= self._epoch and (epoch < self._epoch or offset <= self._offset):
            return None
        if self._fetching:
            self._more = True
            self._hear(position)
            return None
        if ready and stored.previous == self._offset and (epoch == self._epoch or not self._epoch):
            self._epoch, self._offset, self._number = epoch, offset, stored.number
            return Deliver(stored)
        self._hear(position)
        return self.resume()

    def notice(self, head: Head) -> Fetch | None:
        """A comparison of heads: the log reaches up to `head`."""
        self._more = True
        self._hear(head.last)
        return self.resume()

    def _hear(self, position: Position) -> None:
        heard = self._heard
        if position.epoch > heard.epoch or (position.epoch == heard.epoch and position.offset > heard.offset):
            self._heard = position

    def resume(self) -> Fetch | None:
        """Room came back, or something was missed: what to read, if there is anything."""
        if self._fetching or not self.behind:
            return None
        self._fetching = True
        return Fetch(self.sent)

    def page(self, messages: Sequence[StoredMessage], head: Head) -> list[tuple[StoredMessage, int]]:
        """The answer to a `Fetch`: what to send, each with the number of messages skipped before it.

        An empty page means that the log was read to its end.
        """
        out: list[tuple[StoredMessage, int]] = []
        for stored in messages:
            position = stored.position
            if position <= self.sent:
                continue
            # Numbers have no holes, so that a jump is what trimming took before it could be sent.
            out.append((stored, max(0, stored.number - 1 - self._number)))
            self._epoch, self._offset, self._number = position.epoch, position.offset, stored.number
        self._hear(head.last)
        if not messages and head.last > self.sent:
            # Whatever lay between has been trimmed; the next message names the head as its predecessor.
            self._epoch, self._offset = head.last.epoch, head.last.offset
        return out

    def settle(self) -> Fetch | None:
        """The log was read up to its head. Asks again where something was announced since the last time."""
        self._fetching = False
        if not self._more:
            self._heard = self.sent  # what was announced and is not there was lost with the store's tail
        self._more = False
        return self.resume()

    def pause(self) -> None:
        """The reading is over for want of room; `resume` goes on."""
        self._fetching = False
