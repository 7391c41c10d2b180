"""Appends a second into a store, by batch size; alone, and while the loop is busy.

python benchmarks/store_append.py [seconds] [url]

Without a URL into a SQLite file of its own; a schema or prefix that the URL names should be empty.
"""

import asyncio
import resource
import sys
import tempfile
import time

from postroom.channel import Retention
from postroom.destination import UserQueue
from postroom.identity import UserName
from postroom.message import Message
from postroom.position import LogKey
from postroom.store import open_store
from postroom.store.base import Append, Store

BODY = b"x" * 150
USERS = 1000


def item(n: int) -> Append:
    user = UserName(f"user-{n % USERS}")
    message = Message(UserQueue(user, "/queue/bench"), UserName("sender"), {"content-type": "text/plain"}, BODY)
    return Append(LogKey(user, "/queue/bench"), message, RETENTION)


RETENTION = Retention(max_messages=10**9, max_bytes=10**12)


async def measure(store: Store, size: int, seconds: float, busy: bool) -> tuple[float, float]:
    """Appends a second, and CPU microseconds an append (both threads; the busy loop's own not counted)."""
    batches = [[item(n * size + k) for k in range(size)] for n in range(max(1, 2000 // size))]
    done, spun = 0, 0.0
    ended = False

    async def spin() -> None:
        nonlocal spun
        while not ended:
            started = time.thread_time()
            for _ in range(200):
                sum(range(50))
            spun += time.thread_time() - started
            await asyncio.sleep(0)

    spinner = asyncio.ensure_future(spin()) if busy else None
    cpu, started = time.process_time(), time.perf_counter()
    while (took := time.perf_counter() - started) < seconds:
        await store.append(batches[done // size % len(batches)])
        done += size
    cpu = time.process_time() - cpu - spun
    ended = True
    if spinner is not None:
        await spinner
    return done / took, cpu / done * 1e6


async def main(seconds: float, url: str | None) -> None:
    sys.setswitchinterval(1e-5)  # as `postroom serve` does
    for busy in (False, True):
        print("while the loop is busy" if busy else "alone")
        for size in (1, 16, 128, 200, 500, 2048):
            with tempfile.TemporaryDirectory() as folder:
                async with open_store(url or f"sqlite:///{folder}/x.db") as store:
                    rate, cpu = await measure(store, size, seconds, busy)
            print(f"  batches of {size:5}: {rate:10,.0f} appends/s, {cpu:6.1f} us of CPU each")
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 2.0, sys.argv[2] if len(sys.argv) > 2 else None))
