"""Idle connections: opens N with one subscription each, holds them, and weighs the server."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from postroom.bench.client import Connection, close_all, connect_all
from postroom.bench.load import BenchFailed, Load, Measured, Tally
from postroom.bench.process import rss_bytes
from postroom.bench.report import Report, report

_SAMPLES: Final = 20


async def run(load: Load, progress: Callable[[str], None], *, pid: int | None) -> Report:
    """Hold the connections for `load.duration`; with `pid`, tell the server's RSS per connection.

    The rate is that of opening, the latency from the first byte to CONNECTED. Ten connections are opened and closed
    first, so that what a server loads with its first client is not counted. Raises BenchFailed if a connection is
    refused or there is no process `pid`.
    """
    tally = Tally()
    if pid is not None and rss_bytes(pid) is None:
        raise BenchFailed(f"the memory of process {pid} cannot be read from /proc")

    asked: dict[Connection, float] = {}
    opened: list[float] = []

    def connection(number: int) -> Connection:
        made = Connection(load.dialect, tally, load.login(number))
        asked[made] = time.perf_counter()
        return made

    def subscriptions(made: Connection) -> tuple[str]:
        opened.append(time.perf_counter())
        tally.latency.record(round((opened[-1] - asked.pop(made)) * 1e6))
        return (load.destination,)

    await close_all(await connect_all((load.url,), connection, min(10, load.connections), subscriptions))
    opened.clear()
    tally.latency.clear()
    await asyncio.sleep(load.warmup)
    before = rss_bytes(pid) if pid else None
    began, cpu = time.perf_counter(), time.process_time()
    held = await connect_all((load.url,), connection, load.connections, subscriptions)
    seconds = time.perf_counter() - began
    cpu = time.process_time() - cpu
    progress(f"{len(held)} connections open after {seconds:.1f} s")
    await asyncio.sleep(load.duration)
    after = rss_bytes(pid) if pid else None
    tally.received = len(held) - tally.lost
    await close_all(held)
    figures: dict[str, float] = {}
    if before is not None and after is not None:
        figures = {
            "rss_before_bytes": before,
            "rss_after_bytes": after,
            "rss_bytes_per_connection": round((after - before) / load.connections),
        }
    series = _series([at - began for at in opened], seconds)
    measured = Measured(seconds=seconds, count=len(held), generator_cpu=cpu / seconds, series=series)
    return report("idle", "connects", load, tally, measured, **figures)


def _series(opened: Sequence[float], seconds: float) -> list[tuple[float, float]]:
    """How many a second were opened, in twenty samples."""
    step = seconds / _SAMPLES
    counts = Counter(min(_SAMPLES - 1, int(at / step)) for at in opened)
    return [(round((number + 1) * step, 3), round(counts[number] / step, 1)) for number in range(_SAMPLES)]
