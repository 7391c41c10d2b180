"""A small STOMP client that shows everything it sees."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol, Self

import websockets
from tests.support.deadline import DEADLINE
from tests.support.frames import Frame, decode, encode
from tests.support.raw import RawWebSocket
from tests.support.server import Server
from websockets.asyncio.client import ClientConnection


class Pipe(Protocol):
    """What the client talks over."""

    async def send(self, data: str | bytes) -> None: ...

    async def recv(self) -> bytes: ...

    async def close(self) -> None: ...

    @property
    def close_code(self) -> int | None: ...


class WebSocketPipe:
    """The `websockets` library as a pipe. It answers PINGs by itself, as a browser does."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, data: str | bytes) -> None:
        try:
            await self.connection.send(data)
        except websockets.ConnectionClosed as closed:
            raise ConnectionError("the server closed the connection") from closed

    async def recv(self) -> bytes:
        try:
            data = await self.connection.recv()
        except websockets.ConnectionClosed as closed:
            raise ConnectionError("the server closed the connection") from closed
        return data.encode() if isinstance(data, str) else data

    async def close(self) -> None:
        await self.connection.close()

    @property
    def close_code(self) -> int | None:
        return self.connection.close_code


class StompClient:
    """One STOMP connection. Nothing is read but while somebody waits; what nobody wanted yet is in `inbox`."""

    def __init__(self, pipe: Pipe) -> None:
        self.pipe = pipe
        self.inbox: deque[Frame] = deque()
        self.connected: Frame = Frame("", {}, b"")
        self._count = 0

    @classmethod
    async def open(cls, server: Server, *, pongs: bool = True) -> Self:
        """A connection that has not sent CONNECT yet."""
        if not pongs:
            return cls(await RawWebSocket.open(server.port, pongs=False))
        return cls(
            WebSocketPipe(
                await websockets.connect(
                    server.url, max_queue=None, ping_interval=None, compression=None, close_timeout=DEADLINE
                )
            )
        )

    @classmethod
    async def connect(
        cls,
        server: Server,
        login: str,
        *,
        device: str | None = None,
        pongs: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> Self:
        """Connect and authenticate."""
        client = await cls.open(server, pongs=pongs)
        return await client.introduced(login, device=device, headers=headers)

    async def introduced(
        self, login: str, *, device: str | None = None, headers: Mapping[str, str] | None = None
    ) -> Self:
        """This client, once it is authenticated."""
        try:
            await self._introduce(login, device, headers or {})
        except BaseException:
            await self.cut()
            raise
        return self

    async def _introduce(self, login: str, device: str | None, headers: Mapping[str, str]) -> None:
        told = {"accept-version": "1.2", "host": "test", "heart-beat": "0,0", "login": login}
        if device is not None:
            told["device"] = device
        await self.raw(encode("CONNECT", {**told, **headers}))
        self.connected = await self.frame(lambda frame: frame.command in ("CONNECTED", "ERROR"))
        assert self.connected.command == "CONNECTED", self.connected

    # ── out ───────────────────────────────────────────────────────────────────────────────────────────

    async def raw(self, data: bytes) -> None:
        """Any bytes, in one message; text where they are UTF-8."""
        try:
            await self.pipe.send(data.decode())
        except UnicodeDecodeError:
            await self.pipe.send(data)

    async def command(
        self, command: str, headers: Mapping[str, str], body: bytes = b"", *, receipt: bool = True
    ) -> Frame | None:
        """Any frame; returns once its RECEIPT is here, if one is asked for."""
        if not receipt:
            await self.raw(encode(command, headers, body))
            return None
        name = self.ticket()
        await self.raw(encode(command, {**headers, "receipt": name}, body))
        return await self.receipt(name)

    def ticket(self) -> str:
        """A new name for a receipt."""
        self._count += 1
        return f"r-{self._count}"

    async def send(
        self,
        destination: str,
        body: str | bytes,
        *,
        receipt: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """SEND."""
        data = body.encode() if isinstance(body, str) else body
        await self.command("SEND", {"destination": destination, **(headers or {})}, data, receipt=receipt)

    async def subscribe(
        self,
        destination: str,
        *,
        ack: str = "auto",
        id: str = "s",
        receipt: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> Frame | None:
        """SUBSCRIBE, and its RECEIPT."""
        told = {"id": id, "destination": destination, "ack": ack, **(headers or {})}
        return await self.command("SUBSCRIBE", told, receipt=receipt)

    async def ack(self, message: Frame, *, receipt: bool = True) -> None:
        """ACK."""
        await self.command("ACK", {"id": message.headers["ack"]}, receipt=receipt)

    async def nack(self, message: Frame, *, receipt: bool = True) -> None:
        """NACK."""
        await self.command("NACK", {"id": message.headers["ack"]}, receipt=receipt)

    # ── in ────────────────────────────────────────────────────────────────────────────────────────────

    async def frame(self, wanted: Callable[[Frame], bool], *, within: float = DEADLINE) -> Frame:
        """The first frame that is `wanted`; the others stay in `inbox`, in order."""
        for frame in self.inbox:
            if wanted(frame):
                self.inbox.remove(frame)
                return frame
        try:
            async with asyncio.timeout(within):
                while True:
                    for frame in (frames := deque(decode(await self.pipe.recv()))):
                        if wanted(frame):
                            before, after = self._split(frames, frame)
                            self.inbox.extend(before)
                            self.inbox.extend(after)
                            return frame
                    self.inbox.extend(frames)
        except TimeoutError:
            raise AssertionError(f"nothing of the kind came; the last that did: {list(self.inbox)[-5:]}") from None

    @staticmethod
    def _split(frames: deque[Frame], at: Frame) -> tuple[list[Frame], list[Frame]]:
        listed = list(frames)
        index = next(number for number, frame in enumerate(listed) if frame is at)
        return listed[:index], listed[index + 1 :]

    async def message(self, subscription: str | None = None, *, within: float = DEADLINE) -> Frame:
        """The next MESSAGE, of one subscription or of any. An ERROR fails the test."""
        frame = await self.frame(
            lambda frame: (
                frame.command == "ERROR"
                or (frame.command == "MESSAGE" and subscription in (None, frame.headers.get("subscription")))
            ),
            within=within,
        )
        assert frame.command == "MESSAGE", frame
        return frame

    async def messages(self, count: int, subscription: str | None = None) -> list[Frame]:
        """The next `count` of them."""
        return [await self.message(subscription) for _ in range(count)]

    async def receipt(self, name: str, *, within: float = DEADLINE) -> Frame:
        """The RECEIPT `name`. An ERROR fails the test."""
        frame = await self.frame(
            lambda frame: (
                frame.command == "ERROR" or (frame.command == "RECEIPT" and frame.headers["receipt-id"] == name)
            ),
            within=within,
        )
        assert frame.command == "RECEIPT", frame
        return frame

    async def error(self) -> Frame:
        """The ERROR, and the close that must follow it; nothing may stand between."""
        found = await self.frame(lambda frame: frame.command == "ERROR")
        await self.ended()
        return found

    async def ended(self) -> int | None:
        """Return once the server has closed; the close code."""
        async with asyncio.timeout(DEADLINE):
            try:
                while True:
                    self.inbox.extend(decode(await self.pipe.recv()))
            except ConnectionError:
                return self.pipe.close_code

    def waiting(self, subscription: str | None = None) -> list[Frame]:
        """The messages that came and were not asked for."""
        return [
            frame
            for frame in self.inbox
            if frame.command == "MESSAGE" and subscription in (None, frame.headers.get("subscription"))
        ]

    async def barrier(self) -> None:
        """Return once all that the server wrote before is here: a round trip."""
        await self.send("/topic/nobody-listens-here", "barrier")

    async def confirmed(self) -> None:
        """Return once what came so far is confirmed, and the cursors are stored.

        The answer to our own PING comes behind the server's PINGs, which are answered by then; the receipt of
        an ACK leaves after all confirms before it are stored.
        """
        assert isinstance(self.pipe, WebSocketPipe), "a raw client proves nothing"
        try:
            async with asyncio.timeout(DEADLINE):
                await (await self.pipe.connection.ping())
        except websockets.ConnectionClosed as closed:
            raise ConnectionError("the server closed the connection") from closed
        await self.command("ACK", {"id": "names nothing"})

    # ── the end ───────────────────────────────────────────────────────────────────────────────────────

    async def disconnect(self) -> None:
        """DISCONNECT, its RECEIPT, and the close."""
        await self.command("DISCONNECT", {})
        await self.ended()

    async def close(self) -> None:
        """Close the WebSocket, without DISCONNECT."""
        await self.pipe.close()

    async def cut(self) -> None:
        """Drop the line without a word."""
        if isinstance(self.pipe, WebSocketPipe):
            self.pipe.connection.transport.abort()
            async with asyncio.timeout(DEADLINE):
                await self.pipe.connection.wait_closed()
        else:
            await self.pipe.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()
