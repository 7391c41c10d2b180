"""Fan-out: N subscribers of one topic, one publisher that keeps K broadcasts outstanding."""

import secrets
import time
from collections.abc import Callable

from picows import WSFrame, WSTransport

from postroom.bench.client import Connection, close_all, connect, connect_all
from postroom.bench.dialect import Dialect
from postroom.bench.framing import Mark, body, read_mark
from postroom.bench.load import Load, Tally, measure
from postroom.bench.report import Report, report

SAMPLED = 16  # every sixteenth subscriber reads the time stamps


class Fanout:
    """The publisher's bookkeeping: a broadcast is done when the deliveries of all subscribers are counted.

    Broadcasts arrive in order, so the total alone says how many are done; no delivery is looked at for that.
    """

    def __init__(self, load: Load, tally: Tally) -> None:
        self._load = load
        self._tally = tally
        self._parts = load.dialect.send(load.destination, load.body_bytes, receipt=False)
        self._run = secrets.randbits(24)
        self._done = 0
        self._stopped = False
        self.target = load.connections
        self.publisher: Connection | None = None

    def start(self) -> None:
        """Send the first K broadcasts."""
        for _ in range(self._load.outstanding):
            self._publish()

    def stop(self) -> None:
        """Publish no more."""
        self._stopped = True

    def reached(self) -> None:
        """Replace each broadcast that is done. Called when the total of deliveries has reached `target`."""
        self._done += 1
        self.target += self._load.connections
        if not self._stopped:
            self._publish()

    def _publish(self) -> None:
        if self.publisher is None:
            return
        _, head, tail = self._parts
        mark = Mark(self._run, 0, self._tally.sent, time.perf_counter_ns() // 1000)
        self.publisher.say(head + body(mark, self._load.body_bytes) + tail)
        self._tally.sent += 1


class Subscriber(Connection):
    """Counts its deliveries and does nothing else: the generator must outrun the server."""

    def __init__(self, dialect: Dialect, tally: Tally, login: str, fanout: Fanout) -> None:
        super().__init__(dialect, tally, login)
        self._fanout = fanout

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Count; the base class's way, without its calls."""
        if frame.get_payload_as_bytes().startswith(self._prefix):
            tally = self.tally
            tally.received += 1
            if tally.received == self._fanout.target:
                self._fanout.reached()
        else:
            super().on_ws_frame(transport, frame)


class Sampler(Connection):
    """Counts its deliveries and records how long they took."""

    def __init__(self, dialect: Dialect, tally: Tally, login: str, fanout: Fanout, body_bytes: int) -> None:
        super().__init__(dialect, tally, login)
        self._fanout = fanout
        self._body = slice(-dialect.tail_bytes - body_bytes, -dialect.tail_bytes)

    def delivered(self, payload: bytes) -> None:
        """Record the latency of a delivery."""
        mark = read_mark(payload[self._body])
        self.tally.latency.record(time.perf_counter_ns() // 1000 - mark.sent_us)
        self.tally.received += 1
        if self.tally.received == self._fanout.target:
            self._fanout.reached()


async def run(load: Load, progress: Callable[[str], None]) -> Report:
    """Drive the scenario and close everything. Raises BenchFailed if it cannot start."""
    tally = Tally()
    fanout = Fanout(load, tally)

    def subscriber(number: int) -> Connection:
        login = load.login(number)
        if number % SAMPLED == 0:
            return Sampler(load.dialect, tally, login, fanout, load.body_bytes)
        return Subscriber(load.dialect, tally, login, fanout)

    subscribers = await connect_all((load.url,), subscriber, load.connections, lambda _: (load.destination,))
    publisher = Connection(load.dialect, tally, load.login(load.connections))
    try:
        fanout.publisher = await connect(publisher, load.url, number=load.connections)
        fanout.start()
        measured = await measure(load, tally, lambda: tally.received, progress)
        fanout.stop()
    finally:
        await close_all((*subscribers, publisher))
    return report("fanout", "deliveries", load, tally, measured)
