"""STOMP over SockJS's HTTP transports as a client of the load: every other connection streams, the rest polls."""

import asyncio
import itertools
import json
import uuid
from collections import deque
from typing import Self

from tests.support.client import StompClient
from tests.support.deadline import DEADLINE
from tests.support.server import Server

_PRELUDE = 2049
_turns = itertools.count()


class _Requests:
    """HTTP/1.1 on one kept connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._chunked = False
        self._left = 0

    async def post(self, path: str, body: bytes = b"") -> int:
        """Send a request; the status of the answer."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        assert self._reader is not None
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nContent-Length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:] if line)
        status = int(lines[0].split(" ")[1])
        self._chunked = headers.get("transfer-encoding") == "chunked"
        self._left = 0 if status == 204 else int(headers.get("content-length", "0"))
        if headers.get("connection") == "close":
            assert self._chunked or self._left or status == 204
        return status

    async def part(self) -> bytes:
        """A part of the answer; empty at its end."""
        assert self._reader is not None
        if not self._chunked:
            size, self._left = self._left, 0
            return await self._reader.readexactly(size)
        size = int(await self._reader.readline(), 16)
        data = await self._reader.readexactly(size + 2)
        return data[:-2]

    def close(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()


class FallbackPipe:
    """A session of SockJS. It asks for messages only while somebody waits for one."""

    def __init__(self, port: int, *, streaming: bool) -> None:
        self._path = f"/chat-websocket/000/{uuid.uuid4().hex}"
        self._kind = "xhr_streaming" if streaming else "xhr"
        self._sending, self._receiving = _Requests(port), _Requests(port)
        self._messages: deque[bytes] = deque()
        self._open = False
        self._rest = b""
        self._skip = 0
        self._closed = False
        self.close_code: int | None = None

    async def send(self, data: str | bytes) -> None:
        assert isinstance(data, str)
        try:
            status = await self._sending.post(self._path + "/xhr_send", json.dumps([data]).encode())
            await self._sending.part()
        except (asyncio.IncompleteReadError, OSError, ValueError, AssertionError) as error:
            raise ConnectionError("the request broke off") from error
        if status != 204:
            raise ConnectionError(f"the request was answered {status}")

    async def recv(self) -> bytes:
        while not self._messages:
            if self._closed or self.close_code is not None:
                raise ConnectionError("the session is over")
            try:
                await self._turn()
            except (asyncio.IncompleteReadError, OSError, ValueError, AssertionError) as error:
                raise ConnectionError("the answer broke off") from error
        return self._messages.popleft()

    async def opened(self) -> None:
        """Return once the session is open."""
        self._messages.append(await self.recv())

    async def close(self) -> None:
        self._closed = True
        self._sending.close()
        self._receiving.close()

    async def _turn(self) -> None:
        if not self._open:
            status = await self._receiving.post(f"{self._path}/{self._kind}")
            if status != 200:
                raise ConnectionError(f"the request was answered {status}")
            self._open, self._rest = True, b""
            self._skip = _PRELUDE if self._kind == "xhr_streaming" else 0
        part = await self._receiving.part()
        if not part or self._kind == "xhr":
            self._open = False
        self._rest += part
        skipped = min(self._skip, len(self._rest))
        self._skip -= skipped
        whole, _, self._rest = self._rest[skipped:].rpartition(b"\n")
        for frame in whole.split(b"\n") if whole else ():
            self._take(frame)

    def _take(self, frame: bytes) -> None:
        match frame[:1]:
            case b"o":
                self._messages.append(b"\n")  # as a heart-beat of STOMP: it opens, and says nothing
            case b"a":
                self._messages.extend(text.encode() for text in json.loads(frame[1:]))
            case b"c":
                self.close_code = json.loads(frame[1:])[0]
            case _:
                assert frame == b"h", frame


class FallbackClient(StompClient):
    """A client of the load that cannot open WebSockets."""

    @classmethod
    async def open(cls, server: Server, *, pongs: bool = True) -> Self:
        """A session that has not sent CONNECT yet."""
        pipe = FallbackPipe(server.port, streaming=next(_turns) % 2 == 0)
        try:
            async with asyncio.timeout(DEADLINE):
                await pipe.opened()
        except BaseException:
            await pipe.close()
            raise
        return cls(pipe)
