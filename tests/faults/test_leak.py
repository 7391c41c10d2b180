"""A hundred thousand clients come and go, and leave nothing behind."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.client import StompClient
from tests.support.deadline import SCALE
from tests.support.server import Server

pytestmark = [pytest.mark.fault, pytest.mark.timeout(400 * SCALE)]

WARM_UP = 20_000
CONNECTIONS = 100_000
CONCURRENCY = 100
GROWTH = 4 * 1024 * 1024
"""What the second hundred thousand may add to the memory: 42 bytes a connection."""

_ROOT = Path(__file__).parents[2]


async def visit(server: Server, count: int) -> None:
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "tests.support.connector", str(server.port), str(count), str(CONCURRENCY)],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=350 * SCALE,
        check=False,
    )
    assert ended.returncode == 0, f"{ended.stderr}\n{server.output()}"
    assert int(ended.stdout) == count, "not everybody got a receipt"


async def test_those_who_come_and_go_leave_nothing_behind(make_server: Callable[..., Server]) -> None:
    server = make_server('[log]\nlevel = "warning"\n')
    await visit(server, WARM_UP)
    await server.reaches("connections", 0)
    before = server.rss()
    await visit(server, CONNECTIONS)
    for gauge in ("connections", "sessions", "users", "subscriptions", "appends_waiting"):
        await server.reaches(gauge, 0)
    grown = server.rss() - before
    assert server.metrics()["connections_accepted"] == WARM_UP + CONNECTIONS
    assert grown < GROWTH, f"{grown / CONNECTIONS:.0f} bytes a connection: {grown >> 10} KiB"
    async with await StompClient.connect(server, "last") as last:
        await last.barrier()
    assert "Traceback" not in server.output(100_000), server.output()
