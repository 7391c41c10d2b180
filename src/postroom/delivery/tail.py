"""What one subscription does with what it hears of its log."""

from collections.abc import Sequence

from msgspec import Struct

from postroom.message import StoredMessage
from postroom.position import Epoch, Head


class Deliver(Struct, frozen=True, gc=False):
    """Send `message` now; it is the one after the last one sent."""

    message: StoredMessage


class Fetch(Struct, frozen=True, gc=False):
    """Read the log after the offset `after`, and come back with `Tail.page`."""

    after: int


Step = Deliver | Fetch | None


class Tail:
    """Follows one log for one subscription.

    Announcements may be lost, repeated or reordered. Each message is handed out once, in append order, or
    reported as skipped, as soon as a later message or a comparison of heads is announced. While a `Fetch` is
    under way, and while the caller has no room, announcements are only remembered.
    """

    __slots__ = ("_epoch", "_fetching", "_heard", "_number", "_sent")

    def __init__(self) -> None:
        self._epoch = Epoch(0)
        self._sent = 0
        self._number = 0
        self._heard = 0
        self._fetching = True  # until `begin` and the first pages: what is announced meanwhile is read

    @property
    def sent(self) -> int:
        """The offset of the last message handed out or skipped."""
        return self._sent

    @property
    def behind(self) -> bool:
        """Whether the log is known to hold more than was handed out."""
        return self._heard > self._sent

    def begin(self, after: int, number: int) -> None:
        """Start behind the offset `after`, whose message had the running number `number`: the cursor."""
        self._sent, self._number = after, number

    def announce(self, stored: StoredMessage, *, ready: bool) -> Step:
        """A message was appended. `ready`: there is room, and the store knows that it may be sent now."""
        position = stored.position
        offset = position.offset
        if offset <= self._sent:
            return None
        if offset > self._heard:
            self._heard = offset
        if self._fetching:
            return None
        if ready and stored.previous == self._sent and (position.epoch == self._epoch or not self._epoch):
            self._sent = offset
            self._number = stored.number
            self._epoch = position.epoch  # known to be the log's, or the log was empty until now
            return Deliver(stored)
        return self.resume()

    def notice(self, head: Head) -> Fetch | None:
        """A comparison of heads: the log reaches up to `head`."""
        if head.last.offset > self._heard:
            self._heard = head.last.offset
        return self.resume()

    def resume(self) -> Fetch | None:
        """Room came back, or something was missed: what to read, if there is anything."""
        if self._fetching or not self.behind:
            return None
        self._fetching = True
        return Fetch(self._sent)

    def page(self, messages: Sequence[StoredMessage], head: Head) -> list[tuple[StoredMessage, int]]:
        """The answer to a `Fetch`: what to send, each with the number of messages skipped before it.

        An empty page means that the log was read to its end.
        """
        out: list[tuple[StoredMessage, int]] = []
        for stored in messages:
            if stored.position.offset <= self._sent:
                continue
            # Numbers have no holes, so that a jump is what trimming took before it could be sent.
            out.append((stored, max(0, stored.number - 1 - self._number)))
            self._sent, self._number = stored.position.offset, stored.number
        self._epoch = head.last.epoch
        self._heard = max(self._heard, head.last.offset)
        if not messages:
            # Whatever lay between has been trimmed; the next message names the head as its predecessor.
            self._sent = max(self._sent, head.last.offset)
        return out

    def settle(self) -> Fetch | None:
        """The reading is over: caught up, or no room. Asks again where more was announced meanwhile."""
        self._fetching = False
        return self.resume()

    def pause(self) -> None:
        """The reading is over for want of room; `resume` goes on."""
        self._fetching = False
