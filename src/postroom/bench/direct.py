"""`direct` (transient, a delivery opens the window) and `durable` (the receipt does, and all is checked)."""

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence

from postroom.bench.client import close_all, connect_all
from postroom.bench.load import Load, Tally, measure
from postroom.bench.pairs import ERRORS, Pairing, Receiver, Sender, counters, queue_of
from postroom.bench.report import Report, report

DRAIN_SECONDS = 15.0
_STEP_SECONDS = 0.002


async def run_direct(load: Load, progress: Callable[[str], None]) -> Report:
    """Drive `load.connections` pairs over a transient destination. Raises BenchFailed if it cannot start."""
    return await _run("direct", load, progress, receipts=False)


async def run_durable(load: Load, progress: Callable[[str], None]) -> Report:
    """The same with receipts; not `ok` unless every receipted message came exactly once and in order."""
    return await _run("durable", load, progress, receipts=True)


async def _run(scenario: str, load: Load, progress: Callable[[str], None], *, receipts: bool) -> Report:
    tally = Tally()
    pairing = Pairing(load, tally, secrets.randbits(24), receipts=receipts)

    def sender(number: int) -> Sender:
        sending, _ = queue_of(load.destination, load.login(load.connections + number))
        return Sender(load.dialect, pairing, load.login(number), number, sending)

    senders = list(await connect_all((load.url,), sender, load.connections, lambda _: (ERRORS,)))
    senders.sort(key=lambda one: one.pair)

    def receiver(number: int) -> Receiver:
        return Receiver(load.dialect, pairing, load.login(load.connections + number), senders[number])

    receivers: Sequence[Receiver] = ()
    try:
        receivers = await connect_all(
            load.receivers_urls or (load.url,),
            receiver,
            load.connections,
            lambda one: (queue_of(load.destination, one.login)[1],),
        )
        async with asyncio.TaskGroup() as tasks:
            pacing = tasks.create_task(_pace(senders, load))
            measured = await measure(load, tally, counters(pairing, senders), progress)
            pacing.cancel()
        pairing.stopped = True
        await _drained(senders, receivers)
    finally:
        await close_all((*senders, *receivers))
    return _checked(report(scenario, "messages", load, tally, measured), receivers)


async def _pace(senders: Sequence[Sender], load: Load) -> None:
    """Open the windows; with a rate, let each sender in turn send as that says."""
    if not load.rate:
        for one in senders:
            one.open(load.outstanding)
        return
    began, sent = time.perf_counter(), 0
    while True:
        for number in range(sent, int((time.perf_counter() - began) * load.rate)):
            senders[number % len(senders)].open(1)
            sent += 1
        await asyncio.sleep(_STEP_SECONDS)


async def _drained(senders: Sequence[Sender], receivers: Sequence[Receiver]) -> None:
    """Wait until everything receipted has arrived and every receipt has come, at most `DRAIN_SECONDS`."""
    until = time.perf_counter() + DRAIN_SECONDS
    while time.perf_counter() < until:
        unreceipted = sum(len(sender.unreceipted) for sender in senders)
        if not unreceipted and not any(one.missing() for one in receivers):
            return
        await asyncio.sleep(0.05)


def _checked(done: Report, receivers: Sequence[Receiver]) -> Report:
    found = {
        "missing": sum(one.missing() for one in receivers),
        "duplicated": sum(one.arrivals.duplicated for one in receivers),
        "out_of_order": sum(one.arrivals.disordered for one in receivers),
    }
    foreign = sum(one.foreign for one in receivers)
    done.figures |= found | ({"left_from_earlier_runs": foreign} if foreign else {})
    done.ok = done.ok and not any(found.values())
    return done
