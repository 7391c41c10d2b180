"""Connects a second: WebSocket, session, one subscription with its receipt, close; over and over."""

import asyncio
import time
from collections.abc import Callable

from postroom.bench.client import Connection, connect
from postroom.bench.load import BenchFailed, Load, Tally, measure
from postroom.bench.report import Report, report

MAX_FAILED = 100


async def run(load: Load, progress: Callable[[str], None]) -> Report:
    """Keep `load.outstanding` connections in the making.

    Latency is from the first byte to the receipt. Raises BenchFailed if the very first cannot connect.
    """
    tally = Tally()
    stopping = asyncio.Event()

    async def once(number: int) -> None:
        began_us = time.perf_counter_ns() // 1000
        connection = Connection(load.dialect, tally, load.login(number))
        try:
            await connect(connection, load.url)
            await connection.subscribe(0, load.destination)
            tally.latency.record(time.perf_counter_ns() // 1000 - began_us)
            tally.received += 1
        finally:
            await connection.close()

    async def worker() -> None:
        while not stopping.is_set():
            number, tally.sent = tally.sent, tally.sent + 1
            try:
                await once(number)
            except BenchFailed as failure:
                tally.failed += 1
                tally.note(str(failure))
                if tally.failed >= MAX_FAILED:
                    return

    await once(0)
    tally.sent = 1
    async with asyncio.TaskGroup() as tasks:
        for _ in range(load.outstanding):
            tasks.create_task(worker())
        measured = await measure(load, tally, lambda: tally.received, progress)
        stopping.set()
    return report("connect", "connects", load, tally, measured)
