"""STOMP over TCP: a server that speaks it, and a pipe to it."""

import asyncio
import contextlib
import ssl
from collections.abc import Mapping
from pathlib import Path

from tests.support.client import StompClient
from tests.support.deadline import DEADLINE
from tests.support.server import Server, free_port


class TcpPipe:
    """A TCP connection as a pipe for StompClient. It reads up to a NUL at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: str | bytes) -> None:
        self.writer.write(data.encode() if isinstance(data, str) else data)
        await self.writer.drain()

    async def recv(self) -> bytes:
        try:
            return await self.reader.readuntil(b"\0")
        except asyncio.IncompleteReadError as error:
            raise ConnectionError("the server closed the connection") from error

    async def close(self) -> None:
        self.writer.transport.abort()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    aclose = close

    @property
    def close_code(self) -> int | None:
        return None


class TcpServer(Server):
    """A server that speaks STOMP over TCP too, with TLS where `authority` is what its clients trust."""

    def __init__(self, folder: Path, *, config: str = "", authority: Path | None = None) -> None:
        self.stomp_port = free_port()
        super().__init__(folder, config=config, options=("--stomp-port", str(self.stomp_port)))
        self.tls = ssl.create_default_context(cafile=authority) if authority is not None else None

    async def pipe(self) -> TcpPipe:
        """A connection on which nothing was said."""
        async with asyncio.timeout(DEADLINE):
            return TcpPipe(*await asyncio.open_connection("127.0.0.1", self.stomp_port, ssl=self.tls))

    async def client(self, login: str, *, headers: Mapping[str, str] | None = None) -> StompClient:
        """A client that is authenticated."""
        return await StompClient(await self.pipe()).introduced(login, headers=headers)

    def healthy(self) -> bool:
        """Whether it answers."""
        return super().healthy() if self.tls is None else "serving STOMP over TCP" in self.output()
