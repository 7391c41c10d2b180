"""The server is killed again and again under load, and nothing that it receipted is lost."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.asgi import AsgiServer
from tests.support.deadline import SCALE
from tests.support.history import Enough, Fault, check
from tests.support.load import Run
from tests.support.server import Server

pytestmark = [pytest.mark.fault, pytest.mark.timeout(120 * SCALE)]

SENDERS = 200
MESSAGES = 50
KILLS = 5


async def hurt(run: Run, kills: int) -> None:
    """Kill the server at random counts of receipts, while messages are in flight."""
    total = run.senders * MESSAGES
    for at in sorted(run.random.sample(range(total // 20, total * 9 // 10), kills)):
        await run.reached(at).wait()
        run.up.clear()
        run.history.note(Fault("kill"))
        await asyncio.to_thread(run.server.restart)
        run.up.set()


@pytest.mark.parametrize("seed", [int(os.environ.get("POSTROOM_TEST_SEED", "1"))])
async def test_what_was_receipted_arrives_through_any_number_of_kills(
    make_server: Callable[..., Server], tmp_path: Path, seed: int
) -> None:
    await stand(make_server('[log]\nlevel = "warning"\n'), tmp_path, seed)


async def test_the_same_under_another_asgi_server(tmp_path: Path) -> None:
    server = AsgiServer(tmp_path, "uvicorn", options=("--log-level", "warning"))
    await asyncio.to_thread(server.start)
    try:
        await stand(server, tmp_path, seed=1, senders=60, kills=2, pings=False)
    finally:
        server.close()


async def stand(
    server: Server, tmp_path: Path, seed: int, *, senders: int = SENDERS, kills: int = KILLS, pings: bool = True
) -> None:
    """Send under kills; nothing receipted may be lost, nothing come in the wrong order."""
    run = Run(server, seed, senders=senders, messages=MESSAGES, users=28, pings=pings)
    await run.play(hurt(run, kills), within=60 * SCALE)
    wrong = check(
        run.history,
        run.owners,
        Enough(
            receipted=senders * MESSAGES,
            redelivered=100,
            reconnected=senders,
            faults=kills,
            faults_in_flight=kills,
            unknown_share=0.0,
        ),
    )
    if not run.in_time:
        wrong.append("time is up")
    if wrong:
        run.history.dump(tmp_path / "history.jsonl")
    assert wrong[:20] == [], f"{len(wrong)} in all; see {tmp_path}/history.jsonl\n{server.output()}"
    assert "Traceback" not in server.output(100_000), server.output(100)
