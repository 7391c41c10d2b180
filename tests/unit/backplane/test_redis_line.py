"""What the driver says of a connection that ends under its hands never ends the engine."""

import asyncio
from typing import Any

import pytest
from tests.support.deadline import DEADLINE

from postroom.backplane.base import Subject
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


class Silent:
    """A connection that is open, and brings nothing."""

    async def connect(self) -> None: ...

    async def disconnect(self, nowait: bool = False) -> None: ...

    async def read_response(self, **_: object) -> None:
        await asyncio.get_running_loop().create_future()


class Stubborn:
    """A client that answers a cancellation with an `error` of the connection that it gives up, or not at all."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.asked = {"INFO": asyncio.Event(), "PUBLISH": asyncio.Event()}
        self.connection_pool = self

    async def execute_command(self, name: str, *_: object) -> dict[str, str]:
        self.asked[name].set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            if self.error is not None:
                raise self.error from None
        return {"role": "master"}

    async def disconnect(self, **_: object) -> None: ...

    async def aclose(self) -> None: ...


@pytest.mark.parametrize("name", ["INFO", "PUBLISH"])
@pytest.mark.parametrize("error", [RuntimeError("the handler is closed"), None], ids=["with an error", "with nothing"])
async def test_a_driver_that_answers_a_cancellation_keeps_nobody_from_ending(
    error: Exception | None, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node did not end at SIGTERM where that came as it asked for the server's role."""
    client = Stubborn(error)
    monkeypatch.setattr("postroom.backplane.redis.connect", lambda url: client)
    monkeypatch.setattr("postroom.backplane.redis._ROLE_SECONDS", 0)
    backplane = RedisBackplane("redis://127.0.0.1:1")

    async def connections() -> list[tuple[str, Any]]:
        return [("", Silent())]

    async def may() -> None: ...

    monkeypatch.setattr(backplane, "_connections", connections)
    monkeypatch.setattr(backplane, "_check", may)
    loop = asyncio.get_running_loop()
    running = loop.create_task(backplane.run(lambda subject, payload: None, lambda: None))
    async with asyncio.timeout(DEADLINE):
        await client.asked["INFO"].wait()
        publishing = loop.create_task(backplane.publish([(Subject("all"), b"x")]))
        await client.asked["PUBLISH"].wait()
    ending = publishing if name == "PUBLISH" else running
    ending.cancel()
    await asyncio.wait({ending}, timeout=DEADLINE)
    assert ending.cancelled()
    for task in (running, publishing):
        task.cancel()
    await asyncio.wait({running, publishing})


class Mute(Silent):
    """A connection whose server says nothing more: the driver tells so with None."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    async def read_response(self, **_: object) -> None:
        await asyncio.sleep(0)

    async def send_command(self, name: str, *_: object) -> None:
        self.sent.append(name)


async def test_a_server_that_does_not_answer_a_ping_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postroom.backplane.redis.connect", lambda url: Stubborn(RuntimeError("closed")))
    backplane = RedisBackplane("redis://127.0.0.1:1")
    mute, again = Mute(), asyncio.Event()

    async def connections() -> list[tuple[str, Any]]:
        if mute.sent:
            again.set()
            return [("", Silent())]
        return [("", mute)]

    async def may() -> None: ...

    monkeypatch.setattr(backplane, "_connections", connections)
    monkeypatch.setattr(backplane, "_check", may)
    running = asyncio.get_running_loop().create_task(backplane.run(lambda subject, payload: None, lambda: None))
    async with asyncio.timeout(DEADLINE):
        await again.wait()
    assert mute.sent == ["PING"]
    running.cancel()
    await asyncio.wait({running})
