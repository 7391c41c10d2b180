"""Cancellations that a library has swallowed."""

import asyncio


def cancelled() -> bool:
    """Whether somebody has asked for the end of this task."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def end_if_cancelled() -> None:
    """Raise CancelledError in a task that is to end, and was not told: a library may answer a cancellation with an
    error of the connection that it gives up, or, by `asyncio.wait_for` of Python 3.11, with nothing, and a task group
    that reports errors swallows it. Who takes that for an outage, or for the answer, goes on for ever."""
    if cancelled():
        raise asyncio.CancelledError
