"""How much is hurt, under what load, and what the history must say then.

POSTROOM_FAULTS=long makes more of everything; POSTROOM_TEST_SEED is the first of the seeds.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol, TypeVar

from tests.support.cluster import Nodes
from tests.support.deadline import SCALE
from tests.support.history import Enough, Fault, check
from tests.support.load import Run

from postroom.testing.proxy import Proxy

LONG: Final = os.environ.get("POSTROOM_FAULTS") == "long"
SEED: Final = int(os.environ.get("POSTROOM_TEST_SEED", "1"))
ROUTINGS: Final = ("directory", "broadcast", "subject")
LEASE: Final = 3.0
CONFIG: Final = f"""
drain-seconds = 2
[log]
level = "warning"
[cluster]
lease-seconds = {LEASE}
renew-seconds = 0.6
heartbeat-seconds = 0.6
reconcile-seconds = 15
"""


class Size(NamedTuple):
    """How large a run is."""

    senders: int
    messages: int
    users: int
    faults: int
    pause: float
    seconds: float


SIZE: Final = Size(80, 200, 28, 6, 0.2, 400 * SCALE) if LONG else Size(40, 40, 14, 2, 0.1, 120 * SCALE)

P = TypeVar("P", bound=Proxy)

RESUMED: Final = "delivery resumed"

Tell = Callable[[str, object], None]
"""pytest's `record_property`: what is recorded as RESUMED stands in the summary of the tests."""


Hurt = Callable[..., Coroutine[None, None, None]]


class Round(NamedTuple):
    """One fault, with one scheme of routing and one seed."""

    hurt: Hurt
    routing: str
    seed: int

    def __str__(self) -> str:
        return f"{self.hurt.__name__}-{self.routing}-{self.seed}"


def rounds(hurts: Sequence[Hurt], *, thorough: Sequence[Hurt] = ()) -> list[Round]:
    """Each fault with one scheme in turn, those of `thorough` with all; in the long form all with all, three times."""
    if LONG:
        return [Round(hurt, routing, SEED + n) for n in range(3) for hurt in hurts for routing in ROUTINGS]
    found = []
    for n, hurt in enumerate(hurts):
        some = ROUTINGS if hurt in thorough else (ROUTINGS[(n + SEED) % len(ROUTINGS)],)
        found += [Round(hurt, routing, SEED) for routing in some]
    return found


def load(nodes: Nodes, seed: int) -> Run:
    """The clients of a run."""
    size = SIZE
    return Run(
        nodes, seed, senders=size.senders, messages=size.messages, users=size.users, pipeline=1, pause=size.pause
    )


def light_load(nodes: Nodes) -> Run:
    """As `load`, but few clients where one fault a run is enough."""
    if LONG:
        return load(nodes, SEED)
    return Run(nodes, SEED, senders=20, messages=25, users=14, pipeline=1, pause=0.05)


@contextlib.contextmanager
def started(proxies: Sequence[P]) -> Iterator[Sequence[P]]:
    """The proxies, for as long as the context lasts."""
    for proxy in proxies:
        proxy.start()
    yield proxies
    for proxy in proxies:
        proxy.close()


async def moments(run: Run, count: int = SIZE.faults) -> AsyncIterator[None]:
    """When to hurt: at `count` random numbers of receipts, while somebody waits for one."""
    total = run.senders * run.messages
    for at in sorted(run.random.sample(range(total // 10, total * 7 // 10), count)):
        await run.reached(at).wait()
        if not await run.flying():
            return  # the last fault took so long that nothing is left to be sent
        yield


class Store(Protocol):
    """The server of the nodes' store."""

    def start(self) -> None: ...

    def kill(self) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...


async def kill_a_node(run: Run, nodes: Nodes, store: Store) -> None:
    async for _ in moments(run):
        run.history.note(Fault("kill -9 of a node"))
        node = run.random.choice(nodes.nodes)
        node.kill()
        run.heal()
        await asyncio.sleep(run.random.uniform(0.2, 1.5))
        await asyncio.to_thread(node.start)


async def restart_the_store(run: Run, nodes: Nodes, store: Store) -> None:
    async for _ in moments(run):
        run.history.note(Fault("kill -9 of the store"))
        await asyncio.to_thread(store.kill)
        await asyncio.sleep(run.random.uniform(0.1, LEASE))
        await asyncio.to_thread(store.start)
        run.heal()


async def pause_the_store(run: Run, nodes: Nodes, store: Store) -> None:
    async for _ in moments(run):
        run.history.note(Fault("the store is paused"))
        store.pause()
        await asyncio.sleep(run.random.choice([0.5, LEASE * 1.5, 7.0]))
        store.resume()
        run.heal()


async def cut_connections(run: Run, proxies: Sequence[Proxy]) -> None:
    async for _ in moments(run):
        run.history.note(Fault("connections to the store are cut, again and again"))
        for _ in range(5):
            run.random.choice(proxies).cut()
            await asyncio.sleep(run.random.uniform(0.05, 0.3))
        run.heal()


def judge(run: Run, nodes: Nodes, folder: Path, tell: Tell, *, faults: int = SIZE.faults) -> None:
    """What the history says."""
    enough = Enough(
        receipted=run.senders * run.messages,
        redelivered=1,
        reconnected=1,
        faults=faults,
        faults_in_flight=1,
        unknown_share=0.0,
    )
    wrong = check(run.history, run.owners, enough)
    if not run.in_time:
        wrong.append(f"time is up, and {run.missing()} have not come, or {run.senders_left} still send")
    if wrong:
        run.history.dump(folder / "history.jsonl")
    tell(RESUMED, ", ".join(map(str, run.resumptions)))
    told = "\n".join(map(str, wrong[:20]))
    assert not wrong, f"{len(wrong)} in all; see {folder}/history.jsonl\n{told}\n{nodes.output()}"
    assert "Traceback" not in nodes.output(100_000), nodes.output(200)
