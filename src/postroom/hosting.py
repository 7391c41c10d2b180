"""A node inside somebody else's ASGI server: opened by the lifespan, or at the first request where there is none."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

import structlog

from postroom.errors import PostroomError
from postroom.site import Site
from postroom.transport.asgi import Receive, Scope, Send, refuse

_log = structlog.get_logger("postroom.hosting")

_UNAVAILABLE: Final = 503

Open = Callable[[], AbstractAsyncContextManager[Site]]
"""Opens a node and what it serves; closes both."""


class Closed(Exception):
    """Nothing is served now. `str()` tells the client."""


class Host:
    """Keeps one site open for an ASGI application, on the event loop that opened it.

    With a lifespan, it is open for as long as that lasts, and drained at its end. Without one, the first request
    opens it, and the end of the process cuts its clients; what was receipted is stored all the same.
    """

    def __init__(self, open: Open) -> None:
        self._open = open
        self._site: Site | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._has_lifespan = False
        self._opening: asyncio.Future[Site] | None = None

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """The site is open within; drained and closed at the end. Raises what opening a node raises."""
        if self._site is not None:
            raise RuntimeError("this application is open already: use its lifespan once")
        self._has_lifespan = True
        async with self._open() as site:
            self._site, self._loop = site, asyncio.get_running_loop()
            try:
                yield
            finally:
                self._site = None
                await site.node.drain()

    async def lifespan(self, receive: Receive, send: Send) -> None:
        """Serve the ASGI lifespan protocol."""
        await receive()  # lifespan.startup
        started = False
        outcome = {"type": "lifespan.shutdown.complete"}
        try:
            async with self.opened():
                started = True
                await send({"type": "lifespan.startup.complete"})
                await receive()  # lifespan.shutdown
        except Exception as error:
            if started:
                _log.exception("the node ended")
                raise
            outcome = {"type": "lifespan.startup.failed", "message": f"postroom: {error}"}
        await send(outcome)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request or a WebSocket; 503 while nothing is open."""
        try:
            site = await self._current()
        except Closed as closed:
            await _refuse(scope, receive, send, str(closed))
            return
        await site(scope, receive, send)

    async def _current(self) -> Site:
        if self._site is None:
            return await self._opened_lazily()
        if self._loop is not asyncio.get_running_loop():
            raise RuntimeError("this application was opened on another event loop: a node lives on one")
        return self._site

    async def _opened_lazily(self) -> Site:
        if self._has_lifespan:
            raise Closed("the server is not ready, or going away; connect again")
        if self._opening is None or self._opening.get_loop() is not asyncio.get_running_loop():
            loop = asyncio.get_running_loop()
            self._opening = loop.create_future()
            # The server gave us no scope of life to own this task: it ends with the loop, and tells of its own death.
            self._keeper = loop.create_task(self._keep_open(self._opening), name="postroom")
        return await asyncio.shield(self._opening)

    async def _keep_open(self, opening: asyncio.Future[Site]) -> None:
        try:
            async with self._open() as site:
                _log.warning("opened at the first request: without a lifespan, clients are cut at the end, not drained")
                self._site, self._loop = site, asyncio.get_running_loop()
                opening.set_result(site)
                await asyncio.get_running_loop().create_future()  # for good
        except Exception as error:
            if opening.done():
                _log.exception("the node ended")
            else:
                reason = str(error) if isinstance(error, PostroomError | OSError) else "internal error"
                _log.error("the node could not be opened", reason=str(error))
                opening.set_exception(Closed(f"the server is not ready: {reason}"))
        finally:
            self._site = None
            self._opening = None
            opening.cancel()


async def _refuse(scope: Scope, receive: Receive, send: Send, reason: str) -> None:
    if scope["type"] == "websocket":
        await receive()  # websocket.connect
        await refuse(scope, send, _UNAVAILABLE, reason)
        return
    body = (reason + "\n").encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": _UNAVAILABLE, "headers": headers})
    await send({"type": "http.response.body", "body": body})
