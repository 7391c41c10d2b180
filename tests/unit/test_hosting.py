"""A Postroom inside somebody else's ASGI server: when it is open, and what it says when it is not."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.deadline import DEADLINE

from postroom import Postroom, Settings, mount
from postroom.errors import ConfigurationError
from postroom.node import Node

MEMORY = Settings(dev=True, store="memory:")


@contextlib.asynccontextmanager
async def client(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as made:
        yield made


class Lifespan:
    """Plays the server's side of the lifespan protocol."""

    def __init__(self, app: Any) -> None:
        self.told: list[dict[str, Any]] = []
        self._incoming: list[str] = ["startup"]
        self._more = asyncio.Event()
        self.started = asyncio.Event()
        self.task = asyncio.get_running_loop().create_task(app({"type": "lifespan"}, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        while not self._incoming:
            self._more.clear()
            await self._more.wait()
        return {"type": f"lifespan.{self._incoming.pop(0)}"}

    async def _send(self, message: dict[str, Any]) -> None:
        self.told.append(message)
        self.started.set()

    async def stop(self) -> None:
        self._incoming.append("shutdown")
        self._more.set()
        await self.task


async def test_it_serves_between_startup_and_shutdown() -> None:
    app = Postroom(settings=MEMORY)
    async with asyncio.timeout(DEADLINE), client(app) as http:
        lifespan = Lifespan(app)
        await lifespan.started.wait()
        assert (await http.get("/readyz")).json() == {"ready": True, "reasons": []}
        await lifespan.stop()
        assert [message["type"] for message in lifespan.told] == [
            "lifespan.startup.complete",
            "lifespan.shutdown.complete",
        ]
        after = await http.get("/healthz")
        assert (after.status_code, after.text) == (503, "the server is not ready, or going away; connect again\n")


async def test_a_start_that_fails_is_told_to_the_server() -> None:
    app = Postroom(settings=Settings(store="memory:"))
    lifespan = Lifespan(app)
    await lifespan.task
    (failed,) = lifespan.told
    assert failed["type"] == "lifespan.startup.failed"
    assert failed["message"].startswith("postroom: no authentication is configured")


async def test_without_a_lifespan_the_first_requests_open_it_once() -> None:
    app = Postroom(settings=MEMORY)
    async with asyncio.timeout(DEADLINE), client(app) as http:
        answers = await asyncio.gather(*(http.get("/healthz") for _ in range(5)))
        assert [answer.text for answer in answers] == ["ok\n"] * 5


async def test_without_a_lifespan_a_start_that_fails_is_told_to_the_client_and_tried_again(tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.touch()
    app = Postroom(settings=Settings(dev=True, store=f"sqlite:///{blocked}/x.db"))
    async with asyncio.timeout(DEADLINE), client(app) as http:
        for _ in range(2):
            answer = await http.get("/healthz")
            assert answer.status_code == 503
            assert answer.text.startswith("the server is not ready: ")
        blocked.unlink()
        assert (await http.get("/healthz")).text == "ok\n"


async def test_one_application_is_opened_once_at_a_time() -> None:
    app = Postroom(settings=MEMORY)
    async with app.lifespan():
        with pytest.raises(RuntimeError, match="open already"):
            async with app.lifespan():
                pass
    async with app.lifespan():
        pass


async def test_another_event_loop_is_refused() -> None:
    app = Postroom(settings=MEMORY)

    async def ask() -> None:
        async with client(app) as http:
            await http.get("/healthz")

    async with app.lifespan():
        with pytest.raises(RuntimeError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, ask())


async def test_a_node_that_dies_is_not_served_any_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    fail = asyncio.Event()

    async def dies(self: Node) -> None:
        await fail.wait()
        raise OSError("something that no retry mends")

    monkeypatch.setattr(Node, "_probe_store", dies)
    app = Postroom(settings=MEMORY)
    async with asyncio.timeout(DEADLINE), client(app) as http:
        lifespan = Lifespan(app)
        await lifespan.started.wait()
        assert (await http.get("/healthz")).status_code == 200
        fail.set()
        with pytest.raises(ExceptionGroup) as died:
            await lifespan.task
        assert died.group_contains(OSError, match="no retry mends")
        assert (await http.get("/healthz")).status_code == 503


async def test_settings_made_in_code_are_checked_like_those_of_a_file() -> None:
    app = Postroom(settings=Settings(dev=True, store="memory:", trusted_proxies=("10.0.0.1/8",)))
    with pytest.raises(ConfigurationError, match="settings: trusted-proxies: "):
        async with app.lifespan():
            pass


async def test_mount_divides_the_paths() -> None:
    async def beside(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": f"beside {scope['path']}".encode()})

    chat = Postroom(settings=MEMORY)
    async with chat.lifespan(), client(mount(chat, at="/chat/", beside=beside)) as http:
        assert (await http.get("/chat/healthz")).text == "ok\n"
        assert (await http.get("/chatter")).text == "beside /chatter"
        assert (await http.get("/healthz")).text == "beside /healthz"
        assert (await http.get("/chat/nothing")).status_code == 404
