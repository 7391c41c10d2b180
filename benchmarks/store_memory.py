"""Bytes that a Valkey needs for mailboxes and for the directory, by its own `used_memory`.

    python -m benchmarks.store_memory [--users N]

Each mailbox gets 1, 5, 20 messages of one size, and a cursor as a subscriber leaves it; then as many users enter the
directory. Nothing is deleted in between: the differences are divided by the number of users.
"""

import argparse
import asyncio
import tempfile

import redis
from benchmarks.processes import valkey

from postroom.channel import Retention
from postroom.destination import UserQueue
from postroom.identity import NodeId, UserName
from postroom.message import Message
from postroom.position import LogKey
from postroom.store import open_store
from postroom.store.base import SHARED, Append
from postroom.store.redis import RedisStore

BATCH = 500
NAME = "/queue/inbox"
RETENTION = Retention()


async def main(users: int) -> None:
    """Fill, and print one line a step."""
    with tempfile.TemporaryDirectory() as folder, valkey(folder) as port, redis.Redis(port=port) as server:
        before = int(server.info("memory")["used_memory"])

        def grown(what: str, times: int = 1) -> None:
            nonlocal before
            now = int(server.info("memory")["used_memory"])
            print(f"{what:60} {(now - before) / users / times:8,.0f} bytes", flush=True)
            before = now

        store = open_store(f"redis://127.0.0.1:{port}")
        assert isinstance(store, RedisStore)
        async with store:
            for size in (100, 250, 1000):
                had = 0
                for count in (1, 5, 20):
                    await fill(store, f"s{size}", users, size, count - had)
                    grown(f"{size} bytes of body: from {had} to {count} messages, each", count - had)
                    had = count
            for number in range(users):
                await store.cursor(LogKey(UserName(f"s250-{number}"), NAME), SHARED)
            grown("a cursor in a mailbox that has one owner")
            lease = await store.join(NodeId("node-1"), 3600)
            names = [UserName(f"user-{number}") for number in range(users)]
            for start in range(0, users, BATCH):
                await store.enter(lease, names[start : start + BATCH])
            grown("a user in the directory, online on one node")


async def fill(store: RedisStore, prefix: str, users: int, size: int, count: int) -> None:
    """`count` messages more into each mailbox."""
    body = b"x" * size
    for _ in range(count):
        for start in range(0, users, BATCH):
            batch = []
            for number in range(start, min(start + BATCH, users)):
                user = UserName(f"{prefix}-{number}")
                headers = {"content-type": "text/plain", "sender": "somebody"}
                message = Message(UserQueue(user, NAME), UserName("somebody"), headers, body)
                batch.append(Append(LogKey(user, NAME), message, RETENTION))
            await store.append(batch)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=20_000)
    asyncio.run(main(parser.parse_args().users))
