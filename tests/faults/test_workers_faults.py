"""Workers and what they stand on, killed and started anew under load: nothing receipted is lost."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.deadline import DEADLINE, SCALE
from tests.support.faults import LONG, SEED
from tests.support.history import Enough, Fault, check
from tests.support.load import Run
from tests.support.workers import Workers

pytestmark = [pytest.mark.fault, pytest.mark.timeout(180 * SCALE)]

SENDERS, MESSAGES = 40, 40
CONFIG = """
drain-seconds = 1
[log]
level = "error"
[cluster]
lease-seconds = 3
renew-seconds = 0.6
heartbeat-seconds = 0.6
reconcile-seconds = 15
"""

Victim = Callable[[Run, Workers], None]


def a_worker(run: Run, workers: Workers) -> None:
    run.random.choice([*workers.workers().values()]).kill()


def every_worker(run: Run, workers: Workers) -> None:
    for process in [*workers.workers().values()]:
        process.kill()


def the_valkey(run: Run, workers: Workers) -> None:
    workers.engine().kill()


def the_keeper(run: Run, workers: Workers) -> None:
    workers.restart()


def each_in_turn(run: Run, workers: Workers) -> None:
    before = workers.workers()
    workers.process.send_signal(signal.SIGHUP)
    workers.until(lambda: not {*before.values()} & {*workers.workers().values()})


@pytest.mark.parametrize(
    ("victim", "kills"),
    [(a_worker, 4), (every_worker, 2), (the_valkey, 2), (the_keeper, 1), (each_in_turn, 1)],
    ids=lambda each: getattr(each, "__name__", None),
)
async def test_what_was_receipted_arrives(tmp_path: Path, victim: Victim, kills: int) -> None:
    await play(Workers(tmp_path, config=CONFIG), victim, kills)


ON_STORES = [("postgres", "", a_worker), ("postgres", "nats", each_in_turn)]
if LONG:
    ON_STORES += [("postgres", "nats", a_worker), ("postgres", "", the_keeper), ("valkey", "", a_worker)]


@pytest.mark.parametrize(("store", "carrier", "victim"), ON_STORES, ids=lambda each: getattr(each, "__name__", each))
async def test_what_was_receipted_arrives_on_a_store_that_is_named(
    tmp_path: Path, request: pytest.FixtureRequest, store: str, carrier: str, victim: Victim
) -> None:
    name = f"workers-{victim.__name__}".replace("_", "-")
    url = request.getfixturevalue("postgres_url" if store == "postgres" else "fresh_url")
    options = ["--backplane", f"{request.getfixturevalue(carrier).url}?prefix={name}"] if carrier else []
    count = 3 if store == "postgres" else 2
    await play(Workers(tmp_path, count=count, config=CONFIG, store=url, options=options), victim, kills=1)


async def play(workers: Workers, victim: Victim, kills: int) -> None:
    """Let everybody talk while `victim` is hurt so many times, and judge what they saw."""
    await asyncio.to_thread(workers.start)
    run = Run(workers, SEED, senders=SENDERS, messages=MESSAGES, users=14, pipeline=1)

    async def hurt() -> None:
        total = SENDERS * MESSAGES
        moments = sorted(run.random.sample(range(total // 10, total * 7 // 10), kills))
        for moment in [run.reached(at) for at in moments]:
            await moment.wait()
            run.history.note(Fault(victim.__name__))
            await asyncio.to_thread(victim, run, workers)
            await asyncio.to_thread(workers.until, lambda: len(workers.workers()) == len(workers.names))

    try:
        await run.play(hurt(), within=120 * SCALE)
        enough = Enough(
            receipted=SENDERS * MESSAGES,
            redelivered=1,
            reconnected=1,
            faults=kills,
            faults_in_flight=1,
            unknown_share=0.0,
        )
        wrong = check(run.history, run.owners, enough)
        if wrong:
            run.history.dump(workers.folder / "history.jsonl")
        assert wrong[:20] == [], f"{len(wrong)} in all; see {workers.folder}/history.jsonl\n{workers.output()}"
        assert "Traceback" not in workers.output(100_000), workers.output(200)
        assert await asyncio.to_thread(workers.stop) == 0
    finally:
        await asyncio.wait_for(asyncio.to_thread(workers.close), DEADLINE)
