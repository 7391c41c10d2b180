"""Clients of the Kafka library are closed whatever their own ways of closing come to."""

import asyncio
from types import SimpleNamespace

import pytest

from postroom.backplane.kafka_topic import let_go


async def _ends_early() -> None:
    raise asyncio.CancelledError  # of a task of the library


@pytest.mark.parametrize("cancelled", [False, True], ids=["by itself", "cancelled"])
async def test_a_way_of_closing_that_ends_early_leaves_nothing_open(cancelled: bool) -> None:
    closed: list[str] = []

    async def close() -> None:
        closed.append("closed")

    async def work(end: asyncio.Event) -> None:
        try:
            await end.wait()
        finally:
            await let_go(SimpleNamespace(_conns={}), _ends_early, close)

    end = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        working = tasks.create_task(work(end))
        await asyncio.sleep(0)
        if cancelled:
            working.cancel()
        end.set()
    assert closed == ["closed"]
    assert working.cancelled() == cancelled


async def test_whoever_is_cancelled_while_closing_ends() -> None:
    begun = asyncio.Event()

    async def hang() -> None:
        begun.set()
        await asyncio.Event().wait()

    async with asyncio.TaskGroup() as tasks:
        closing = tasks.create_task(let_go(SimpleNamespace(_conns={}), hang))
        await begun.wait()
        closing.cancel()
    assert closing.cancelled()
