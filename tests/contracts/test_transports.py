"""Every transport against the transport's contract."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest
import uvicorn
from starlette.applications import Starlette
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from postroom.testing.contracts.transport import Client, Connect, Serve, TransportContract
from postroom.transport.asgi import Receive, Scope, Send, serve_websocket
from postroom.transport.base import Endpoint
from postroom.transport.front import FrontLimits, front
from postroom.transport.tcp import tcp_listener


class WebSocketClient:
    """A client of `websockets`, which takes no more than two messages that nobody has received."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def send(self, message: bytes) -> None:
        await self._connection.send(message.decode())

    async def receive(self) -> bytes:
        return await self._connection.recv(decode=False)

    async def ended(self) -> int:
        try:
            while True:
                await self._connection.recv()
        except ConnectionClosed:
            assert self._connection.close_code is not None
            return self._connection.close_code

    async def close(self) -> None:
        await self._connection.close()

    def abort(self) -> None:
        self._connection.transport.abort()


class TcpClient:
    """A plain connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, message: bytes) -> None:
        self._writer.write(message)
        await self._writer.drain()

    async def receive(self) -> bytes:
        return await self._reader.read(65_536)

    async def ended(self) -> int:
        while await self._reader.read(65_536):
            pass
        return 1006

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    def abort(self) -> None:
        self._writer.transport.abort()


def listening() -> socket.socket:
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    return bound


@asynccontextmanager
async def uvicorn_serving(**options: Any) -> AsyncIterator[Connect]:
    bound = listening()
    server = uvicorn.Server(uvicorn.Config(lifespan="off", log_level="critical", **options))
    url = f"ws://127.0.0.1:{bound.getsockname()[1]}/"

    async def connected() -> Client:
        return WebSocketClient(await connect(url, compression=None, max_queue=1, max_size=None, ping_interval=None))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.serve(sockets=[bound]))
        bound.listen()
        try:
            yield connected
        finally:
            server.should_exit = server.force_exit = True


class TestNativeTransport(TransportContract):
    engine = "native"

    @pytest.fixture
    def serve(self) -> Serve:
        def serving(endpoint: Endpoint) -> Any:
            return uvicorn_serving(app=Starlette(), http=front(lambda path: endpoint, FrontLimits()))

        return serving


class TestAsgiTransport(TransportContract):
    engine = "ASGI"

    @pytest.fixture
    def serve(self) -> Serve:
        def serving(endpoint: Endpoint) -> Any:
            async def app(scope: Scope, receive: Receive, send: Send) -> None:
                await serve_websocket(scope, receive, send, endpoint, path="/", max_bytes=1_048_576)

            return uvicorn_serving(app=app, ws="websockets-sansio")

        return serving


class TestTcpTransport(TransportContract):
    engine = "TCP"
    cuts: ClassVar[bool] = False
    tells: ClassVar[bool] = False

    @pytest.fixture
    def serve(self) -> Serve:
        @asynccontextmanager
        async def serving(endpoint: Endpoint) -> AsyncIterator[Connect]:
            loop = asyncio.get_running_loop()
            server = await loop.create_server(tcp_listener(endpoint, str.encode), sock=listening())
            port = server.sockets[0].getsockname()[1]

            async def connected() -> Client:
                reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
                return TcpClient(reader, writer)

            yield connected
            server.close()

        return serving
