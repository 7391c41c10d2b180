"""What every transport must do. Subclass it, and give it a fixture `serve`."""

# ruff: noqa: D102 (a test says its promise in its name)

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import ClassVar, Final, Protocol

import pytest
import pytest_asyncio

from postroom.testing.contracts.marks import asynchronous
from postroom.transport.base import Endpoint, Handshake, Receiver, Transport

_SECONDS: Final = 20.0 * float(os.environ.get("POSTROOM_TEST_SCALE", "1"))
_LARGE: Final = b"x" * 65_536
_MANY: Final = 1_000


class Client(Protocol):
    """The other end of the pipe. It takes nothing from its socket while nobody receives, but for a little."""

    async def send(self, message: bytes) -> None:
        """Send one message of ASCII text."""
        ...

    async def receive(self) -> bytes:
        """The next message, or some bytes where nothing cuts the pipe into messages."""
        ...

    async def ended(self) -> int:
        """The code of the close, once the pipe is gone; what comes before it is dropped."""
        ...

    async def close(self) -> None:
        """End it as the protocol says."""
        ...

    def abort(self) -> None:
        """End it without a word."""
        ...


Connect = Callable[[], Awaitable[Client]]
Serve = Callable[[Endpoint], AbstractAsyncContextManager[Connect]]
"""Serves an endpoint; clients connect while the context is open."""


class Recorder:
    """A receiver that keeps what it is told."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.received: list[bytes] = []
        self.proofs: list[bytes] = []
        self.drained = 0
        self.losses: list[int] = []
        self.late = 0
        self._changed = asyncio.Event()

    def receive(self, data: bytes) -> None:
        self.late += bool(self.losses)
        self.received.append(data)
        self._changed.set()

    def proved(self, token: bytes, *, alive: bool = True) -> None:
        self.late += bool(self.losses)
        self.proofs.append(token)
        self._changed.set()

    def writable(self) -> None:
        self.late += bool(self.losses)
        self.drained += 1
        self._changed.set()

    def lost(self, code: int, reason: str) -> None:
        self.losses.append(code)
        self._changed.set()

    async def until(self, done: Callable[[], object]) -> None:
        """Return once `done` says so."""
        async with asyncio.timeout(_SECONDS):
            while not done():
                self._changed.clear()
                await self._changed.wait()

    def write(self, payload: bytes) -> None:
        self.transport.write(self.transport.framing(payload))


class Pair:
    """A client, and the server's end of its pipe."""

    def __init__(self, client: Client, server: Recorder) -> None:
        self.client = client
        self.server = server

    async def read(self, size: int) -> bytes:
        """What the client gets next, `size` bytes of it or a message more."""
        got = b""
        async with asyncio.timeout(_SECONDS):
            while len(got) < size:
                got += await self.client.receive()
        return got


@asynchronous
class TransportContract:
    """The promises of `Transport` and of what it tells its `Receiver`. `engine` names it in reports.

    `cuts`: the pipe carries messages, not a stream. `tells`: the client learns the code of a close.
    """

    engine: ClassVar[str] = ""
    cuts: ClassVar[bool] = True
    tells: ClassVar[bool] = True

    @pytest.fixture
    def serve(self) -> Serve:
        """The engine's own."""
        pytest.fail("override the fixture `serve`: it returns a function that serves an endpoint")

    @pytest_asyncio.fixture
    async def pair(self, serve: Serve) -> AsyncIterator[Pair]:
        """A connected client, and the server's end."""
        accepted: asyncio.Queue[Recorder] = asyncio.Queue(1)  # noqa: TID251 (bounded)

        def accept(handshake: Handshake, transport: Transport) -> Receiver:
            recorder = Recorder(transport)
            accepted.put_nowait(recorder)
            return recorder

        async with serve(Endpoint(accept=accept, check=lambda handshake: None)) as connect, asyncio.timeout(_SECONDS):
            client = await connect()
            yield Pair(client, await accepted.get())
            client.abort()

    async def test_what_is_sent_is_received_in_order(self, pair: Pair) -> None:
        sent = [b"message %d" % number for number in range(_MANY)]
        for message in sent:
            await pair.client.send(message)
        await pair.server.until(lambda: len(b"".join(pair.server.received)) == len(b"".join(sent)))
        assert b"".join(pair.server.received) == b"".join(sent)

    async def test_a_message_comes_whole(self, pair: Pair) -> None:
        if not self.cuts:
            pytest.skip("this pipe carries a stream")
        await pair.client.send(_LARGE)
        await pair.client.send(b"short")
        await pair.server.until(lambda: len(pair.server.received) == 2)
        assert pair.server.received == [_LARGE, b"short"]

    async def test_what_is_written_arrives_in_order(self, pair: Pair) -> None:
        written = [b"message %d" % number for number in range(_MANY)]
        for payload in written:
            pair.server.write(payload)
        assert await pair.read(len(b"".join(written))) == b"".join(written)

    async def test_frames_may_be_joined(self, pair: Pair) -> None:
        framing = pair.server.transport.framing
        pair.server.transport.write(framing(b"one") + framing(b"two") + framing(_LARGE))
        assert await pair.read(6 + len(_LARGE)) == b"onetwo" + _LARGE

    async def test_equal_framings_give_equal_bytes(self, pair: Pair) -> None:
        framing = pair.server.transport.framing
        assert framing == pair.server.transport.framing
        assert framing(b"same") == framing(b"same")

    async def test_a_close_comes_after_what_was_written(self, pair: Pair) -> None:
        pair.server.write(b"last words")
        pair.server.transport.close(1012, "restart")
        assert await pair.read(10) == b"last words"
        code = await pair.client.ended()
        await pair.server.until(lambda: pair.server.losses)
        if self.tells:
            assert code == 1012

    async def test_a_client_that_closes_is_lost_once(self, pair: Pair) -> None:
        await pair.client.close()
        await pair.server.until(lambda: pair.server.losses)
        self._is_silent(pair.server)

    async def test_a_client_that_is_gone_is_lost_once(self, pair: Pair) -> None:
        pair.client.abort()
        await pair.server.until(lambda: pair.server.losses)
        self._is_silent(pair.server)

    @staticmethod
    def _is_silent(server: Recorder) -> None:
        transport = server.transport
        server.write(b"to nobody")
        transport.probe(b"1")
        transport.pause_reading()
        transport.resume_reading()
        transport.close(1000)
        transport.abort()
        assert len(server.losses) == 1
        assert server.late == 0

    async def test_an_abort_ends_it_though_nobody_reads(self, pair: Pair) -> None:
        for _ in range(64):
            pair.server.write(_LARGE)
        pair.server.transport.abort()
        await pair.server.until(lambda: pair.server.losses)
        assert len(pair.server.losses) == 1

    async def test_who_is_paused_receives_later_and_in_order(self, pair: Pair) -> None:
        pair.server.transport.pause_reading()
        for number in range(5):
            await pair.client.send(b"%d" % number)
        pair.server.write(b"still written")
        assert await pair.read(13) == b"still written"
        assert pair.server.received == []
        pair.server.transport.resume_reading()
        await pair.server.until(lambda: len(b"".join(pair.server.received)) == 5)
        assert b"".join(pair.server.received) == b"01234"

    async def test_a_client_that_does_not_read_is_seen(self, pair: Pair) -> None:
        server, written = pair.server, 0
        while server.transport.buffered_bytes < 1_048_576:
            server.write(_LARGE)
            written += len(_LARGE)
            await asyncio.sleep(0)
        drained = server.drained
        assert await pair.read(written) == _LARGE * (written // len(_LARGE))
        await server.until(lambda: server.drained > drained)
        assert server.transport.buffered_bytes == 0

    async def test_a_probe_is_answered_after_what_was_written(self, pair: Pair) -> None:
        pair.server.write(b"before")
        if not pair.server.transport.probe(b"7"):
            pytest.skip("this pipe cannot prove receipt by itself")
        assert await pair.read(6) == b"before"
        await pair.server.until(lambda: pair.server.proofs)
        assert pair.server.proofs == [b"7"]
