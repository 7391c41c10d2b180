"""The server is killed again and again under load, and nothing that it receipted is lost."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.deadline import SCALE
from tests.support.history import Enough, Fault, check
from tests.support.load import Run
from tests.support.server import Server

pytestmark = [pytest.mark.fault, pytest.mark.timeout(120 * SCALE)]

SENDERS = 200
MESSAGES = 50
KILLS = 5


async def hurt(run: Run) -> None:
    """Kill the server at random counts of receipts, while messages are in flight."""
    total = SENDERS * MESSAGES
    for at in sorted(run.random.sample(range(total // 20, total * 9 // 10), KILLS)):
        await run.reached(at).wait()
        run.up.clear()
        run.history.note(Fault("kill"))
        await asyncio.to_thread(run.server.restart)
        run.up.set()


@pytest.mark.parametrize("seed", [int(os.environ.get("POSTROOM_TEST_SEED", "1"))])
async def test_what_was_receipted_arrives_through_any_number_of_kills(
    make_server: Callable[..., Server], tmp_path: Path, seed: int
) -> None:
    server = make_server('[log]\nlevel = "warning"\n')
    run = Run(server, seed, senders=SENDERS, messages=MESSAGES, users=28)
    await run.play(hurt(run), within=60 * SCALE)
    wrong = check(
        run.history,
        run.owners,
        Enough(
            receipted=SENDERS * MESSAGES,
            redelivered=100,
            reconnected=SENDERS,
            faults=KILLS,
            faults_in_flight=KILLS,
            unknown_share=0.0,
        ),
    )
    if not run.in_time:
        wrong.append("time is up")
    if wrong:
        run.history.dump(tmp_path / "history.jsonl")
    assert wrong[:20] == [], f"{len(wrong)} in all; see {tmp_path}/history.jsonl\n{server.output()}"
    assert "Traceback" not in server.output(100_000), server.output(100)
