"""What the driver says of a connection that ends under its hands never ends the engine."""

import asyncio
from typing import Any

import pytest
from tests.support.deadline import DEADLINE

from postroom.backplane.redis import RedisBackplane


class Ending:
    """A connection that ends while it is opened, the first times."""

    def __init__(self, errors: list[Exception]) -> None:
        self._errors = errors
        self.tried = asyncio.Event()

    async def connect(self) -> None:
        if self._errors:
            raise self._errors.pop()
        self.tried.set()
        raise ConnectionRefusedError

    async def disconnect(self, nowait: bool = False) -> None:
        """Nothing is open."""


@pytest.mark.parametrize(
    "error", [RuntimeError("the handler is closed"), AttributeError("no writer"), OSError("reset")]
)
async def test_a_connection_that_ends_while_it_is_opened_is_opened_again(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    backplane, connection = RedisBackplane("redis://127.0.0.1:1"), Ending([error])

    async def connections() -> list[tuple[str, Any]]:
        return [("", connection)]

    monkeypatch.setattr(backplane, "_connections", connections)
    async with asyncio.timeout(DEADLINE):
        running = asyncio.get_running_loop().create_task(backplane.run(lambda subject, payload: None, lambda: None))
        await connection.tried.wait()
    assert not running.done()
    running.cancel()
    await asyncio.wait({running})
