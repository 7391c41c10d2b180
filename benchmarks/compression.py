"""What permessage-deflate costs and saves on JSON, a message at a time: python benchmarks/compression.py."""

import json
import random
import time
from collections.abc import Callable
from typing import Final

from postroom.transport import websocket
from postroom.transport.deflate import Compression, deflate, inflate

_WORDS: Final = [
    "order",
    "price",
    "quantity",
    "delivered",
    "waiting",
    "user",
    "message",
    "node",
    "since",
    "kept",
    "city",
    "street",
    "total",
]
_SECONDS: Final = 0.2


def message(rows: int, seed: int) -> bytes:
    """A JSON document like those that applications send."""
    chance = random.Random(seed)
    return json.dumps(
        [
            {
                "id": chance.randrange(10**9),
                "status": chance.choice(_WORDS),
                "price": round(chance.uniform(1, 999), 2),
                "note": " ".join(chance.choices(_WORDS, k=6)),
            }
            for _ in range(rows)
        ]
    ).encode()


def microseconds(work: Callable[[], object]) -> float:
    """The time of one call."""
    calls, begun = 0, time.perf_counter()
    while (spent := time.perf_counter() - begun) < _SECONDS:
        for _ in range(20):
            work()
        calls += 20
    return spent / calls * 1e6


def main() -> None:
    """Print a Markdown table."""
    print("| bytes | window bits | level | of its size | deflate µs | inflate µs | frame alone µs |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for rows in (2, 8, 80):
        payload = message(rows, 7)
        plain = microseconds(lambda payload=payload: websocket.message(payload))  # type: ignore[misc]
        for bits in (9, 12, 15):
            for level in (1, 6):
                terms = Compression(window_bits=bits, level=level)
                small = deflate(payload, terms)
                there = microseconds(lambda payload=payload, terms=terms: deflate(payload, terms))  # type: ignore[misc]
                back = microseconds(lambda small=small: inflate(small, 1 << 20))  # type: ignore[misc]
                ratio = len(small) / len(payload)
                print(f"| {len(payload):,} | {bits} | {level} | {ratio:.0%} | {there:.0f} | {back:.0f} | {plain:.2f} |")


if __name__ == "__main__":
    main()
