"""User to user: what the scenarios `direct` and `durable` share.

Each sender has one receiver and a window of W messages. In `direct` a delivery opens the window; in `durable`
the sender's RECEIPT does. What a tick of the loop has opened is written at its end, joined per sender.
"""

import asyncio
import time
from collections.abc import Callable
from urllib.parse import quote

from postroom.bench.client import Connection
from postroom.bench.dialect import Dialect
from postroom.bench.framing import Mark, Masker, body, read_mark
from postroom.bench.load import Load, Tally

MAX_REFUSED = 10_000  # a server that refuses everything must not be asked for ever
ERRORS = "/user/queue/errors"


class Arrivals:
    """Checks one pair's numbers: each once, in order. A hole that is filled later is disorder, not loss."""

    __slots__ = ("disordered", "duplicated", "expected", "holes")

    def __init__(self) -> None:
        self.expected = 0
        self.holes: set[int] = set()
        self.duplicated = 0
        self.disordered = 0

    def add(self, number: int) -> None:
        """Take the next arrival."""
        if number == self.expected:
            self.expected += 1
        elif number > self.expected:
            self.holes.update(range(self.expected, number))
            self.expected = number + 1
        elif number in self.holes:
            self.holes.discard(number)
            self.disordered += 1
        else:
            self.duplicated += 1

    def missing(self, sent: int, unreceipted: set[int]) -> int:
        """Count what was promised (`sent`, less what got no receipt) and did not arrive."""
        return len((self.holes | set(range(self.expected, sent))) - unreceipted)


class Flusher:
    """Collects the senders whose windows have opened, and lets each write once at the end of the tick."""

    __slots__ = ("_call_soon", "_dirty")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._call_soon = loop.call_soon
        self._dirty: list[Sender] = []

    def add(self, sender: "Sender") -> None:
        """Let `sender` write soon."""
        if not self._dirty:
            self._call_soon(self._flush)
        self._dirty.append(sender)

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        for sender in dirty:
            sender.flush()


class Pairing:
    """What all pairs of a run share."""

    __slots__ = ("body_bytes", "flusher", "masker", "paced", "receipts", "run", "stopped", "tally")

    def __init__(self, load: Load, tally: Tally, run: int, *, receipts: bool) -> None:
        self.tally = tally
        self.body_bytes = load.body_bytes
        self.run = run
        self.receipts = receipts
        self.paced = load.rate > 0
        self.masker = Masker()
        self.flusher = Flusher(asyncio.get_running_loop())
        self.stopped = False


class Sender(Connection):
    """Keeps its window full. `unreceipted` holds the numbers whose receipt has not come."""

    def __init__(self, dialect: Dialect, pairing: Pairing, login: str, pair: int, destination: str) -> None:
        super().__init__(dialect, pairing.tally, login)
        self._pairing = pairing
        self.pair = pair
        self._parts = dialect.send(destination, pairing.body_bytes, receipt=pairing.receipts)
        self._owed = 0
        self.sent = 0
        self.receipts = 0
        self.unreceipted: set[int] = set()

    def open(self, count: int) -> None:
        """Let `count` more messages out, at the end of the tick."""
        if self._owed == 0:
            self._pairing.flusher.add(self)
        self._owed += count

    def reopen(self) -> None:
        """One of the window's messages has arrived."""
        if not self._pairing.paced:
            self.open(1)

    def flush(self) -> None:
        """Write what the window allows, as one write."""
        owed, self._owed = self._owed, 0
        pairing = self._pairing
        if pairing.stopped or pairing.tally.refused > MAX_REFUSED:
            return
        before_token, head, tail = self._parts
        size, frame = pairing.body_bytes, pairing.masker.frame
        now_us = time.perf_counter_ns() // 1000
        frames = []
        for number in range(self.sent, self.sent + owed):
            if pairing.receipts:
                self.unreceipted.add(number)
                start = before_token + b"%d" % number + head
            else:
                start = head
            frames.append(frame(start + body(Mark(pairing.run, self.pair, number, now_us), size) + tail))
        self.sent += owed
        pairing.tally.sent += owed
        self.write(b"".join(frames))

    def receipted(self, token: bytes) -> None:
        """A message is stored, says the server: send the next."""
        if token.isdigit() and (number := int(token)) in self.unreceipted:
            self.unreceipted.discard(number)
            self.receipts += 1
            self.reopen()
        else:
            super().receipted(token)

    def refused(self, payload: bytes) -> None:
        """Count it; the next may fare better."""
        super().refused(payload)
        self.reopen()


class Receiver(Connection):
    """Checks and times what arrives; without receipts each arrival opens its sender's window."""

    def __init__(self, dialect: Dialect, pairing: Pairing, login: str, sender: Sender) -> None:
        super().__init__(dialect, pairing.tally, login)
        self._pairing = pairing
        self._sender = sender
        self._body = slice(-dialect.tail_bytes - pairing.body_bytes, -dialect.tail_bytes)
        self.arrivals = Arrivals()
        self.foreign = 0

    def delivered(self, payload: bytes) -> None:
        """Take a message of this run; count one of an earlier run as foreign."""
        try:
            mark = read_mark(payload[self._body])
        except ValueError:
            self.foreign += 1
            return
        if mark.run != self._pairing.run:
            self.foreign += 1
            return
        self.tally.received += 1
        self.arrivals.add(mark.number)
        self.tally.latency.record(time.perf_counter_ns() // 1000 - mark.sent_us)
        if not self._pairing.receipts:
            self._sender.reopen()

    def missing(self) -> int:
        """Count what the sender was promised and this receiver has not got; of unpromised sends, all are."""
        return self.arrivals.missing(self._sender.sent, self._sender.unreceipted)


def queue_of(pattern: str, login: str) -> tuple[str, str]:
    """Give where to SEND for `login` and where that user subscribes.

    `/user/{name}/queue/x` is subscribed as `/user/queue/x`; another destination is the same for both.
    """
    sending = pattern.replace("{name}", quote(login, safe=""))
    subscribing = pattern.replace("/{name}/", "/") if pattern.startswith("/user/") else sending
    return sending, subscribing


def counters(pairing: Pairing, senders: list[Sender]) -> Callable[[], int]:
    """Give what the scenario counts: receipts, or deliveries."""
    if pairing.receipts:
        return lambda: sum(sender.receipts for sender in senders)
    return lambda: pairing.tally.received
