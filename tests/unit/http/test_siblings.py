"""Workers answer for one another."""

import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from postroom.http.health import health_routes, status_of
from postroom.http.siblings import Siblings, Status
from postroom.metrics import Metrics

NAMES = ["n-1", "n-2", "n-3"]


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pr-") as name:  # a Unix socket's path is short
        yield Path(name)


def web(siblings: Siblings, received: int, reasons: list[str]) -> httpx.AsyncClient:
    metrics = Metrics()
    metrics.received = received
    app = Starlette(routes=health_routes(metrics, lambda: {"sessions": 2.0}, lambda: reasons, siblings))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x")


def status(received: int, *reasons: str) -> Status:
    metrics = Metrics()
    metrics.received = received
    return status_of(metrics, lambda: {"sessions": True}, lambda: reasons)


async def test_one_answers_for_all_and_says_who_is_silent(folder: Path) -> None:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(Siblings(folder, NAMES, "n-2").answering(lambda: status(20, "draining")))
        asked = await stack.enter_async_context(web(Siblings(folder, NAMES, "n-1"), 10, []))
        told = (await asked.get("/metrics")).text
        assert 'postroom_received_total{worker="n-1"} 10.0\npostroom_received_total{worker="n-2"} 20.0\n' in told
        assert 'postroom_sessions{worker="n-1"} 2.0\npostroom_sessions{worker="n-2"} 1.0\n' in told
        assert 'postroom_worker_up{worker="n-3"} 0.0' in told
        ready = await asked.get("/readyz")
        assert ready.status_code == 200
        assert ready.json() == {
            "ready": True,
            "workers": {"n-1": [], "n-2": ["draining"], "n-3": ["it does not answer"]},
        }


async def test_nobody_is_ready_where_no_worker_is(folder: Path) -> None:
    async with (
        Siblings(folder, NAMES[:2], "n-2").answering(lambda: status(0, "draining")),
        web(Siblings(folder, NAMES[:2], "n-1"), 0, ["the store is unavailable"]) as asked,
    ):
        assert (await asked.get("/readyz")).status_code == 503


async def test_a_worker_that_comes_back_takes_its_place_again(folder: Path) -> None:
    place = Siblings(folder, NAMES, "n-2")
    (folder / "worker-2.sock").touch()  # left behind
    async with place.answering(lambda: status(1)):
        found = await Siblings(folder, NAMES, "n-1").all(status(0))
    assert found["n-2"] == status(1)
    assert found["n-3"] is None
