"""A WebSocket client without manners: sends what it is told, answers only what it is told to."""

import asyncio
import base64
import os
import struct
from collections.abc import Mapping
from typing import Self

from tests.support.deadline import DEADLINE

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class RawWebSocket:
    """One connection. `pongs` False: never answers a PING, nor a CLOSE."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, pongs: bool) -> None:
        self.reader = reader
        self.writer = writer
        self.pongs = pongs
        self.close_code: int | None = None

    @classmethod
    async def open(
        cls, port: int, path: str = "/ws", *, headers: Mapping[str, str] | None = None, pongs: bool = True
    ) -> Self:
        """Connect and upgrade."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(handshake(port, path, headers))
            async with asyncio.timeout(DEADLINE):
                head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101"), head
        except BaseException:
            writer.transport.abort()
            raise
        return cls(reader, writer, pongs=pongs)

    async def send(self, data: str | bytes) -> None:
        """One whole message."""
        if isinstance(data, str):
            self.write(TEXT, data.encode())
        else:
            self.write(BINARY, data)
        await self.writer.drain()

    def write(self, opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0, masked: bool = True) -> None:
        """One frame, as wrong as you like."""
        self.writer.write(frame(opcode, payload, fin=fin, rsv=rsv, masked=masked))

    async def recv(self) -> bytes:
        """The next message. Raises ConnectionError at the end; `close_code` tells how."""
        while True:
            opcode, payload = await self.next_frame()
            if opcode in (TEXT, BINARY):
                return payload
            if opcode == CLOSE:
                self.close_code = struct.unpack("!H", payload[:2])[0] if payload else 1005
                if self.pongs:
                    self.write(CLOSE, payload)
            elif opcode == PING and self.pongs:
                self.write(PONG, payload)

    async def next_frame(self) -> tuple[int, bytes]:
        """The next frame of the server. Raises ConnectionError at the end."""
        try:
            first, second = await self.reader.readexactly(2)
            size = second & 0x7F
            if size == 126:
                (size,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
            return first & 0x0F, await self.reader.readexactly(size)
        except asyncio.IncompleteReadError:
            raise ConnectionError("the server closed the connection") from None

    async def ended(self) -> list[bytes]:
        """What still came before the server closed, which it must do before the deadline."""
        came: list[bytes] = []
        async with asyncio.timeout(DEADLINE):
            try:
                while True:
                    came.append(await self.recv())
            except ConnectionError:
                return came

    async def close(self) -> None:
        """Drop the line without a word."""
        self.writer.transport.abort()


def handshake(port: int, path: str = "/ws", headers: Mapping[str, str] | None = None) -> bytes:
    """An upgrade request."""
    all_headers = {
        "Host": f"127.0.0.1:{port}",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        **(headers or {}),
    }
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in all_headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def frame(opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """A WebSocket frame of a client."""
    size, mask = len(payload), 0x80 if masked else 0
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if size < 126:
        head += bytes([mask | size])
    elif size < 65536:
        head += bytes([mask | 126]) + struct.pack("!H", size)
    else:
        head += bytes([mask | 127]) + struct.pack("!Q", size)
    return head + (b"\0\0\0\0" if masked else b"") + payload  # a mask of zeros changes nothing
