"""One connection of the generator: a picows listener that a scenario extends by `delivered`."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar
from urllib.parse import urlsplit

from picows import (
    WSCloseCode,
    WSError,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeResponseWithListener,
    ws_connect,
)

from postroom.bench.dialect import Dialect, Kind
from postroom.bench.load import BenchFailed, Tally

ANSWER_SECONDS = 20.0
PORTS_AN_ADDRESS = 20_000  # of about 28,000 ephemeral ones; beyond it another 127.0.0.x is the source
AT_ONCE = 100

Upgrade = WSUpgradeResponseWithListener


class Connection(WSListener):
    """A WebSocket that becomes a session of the dialect. Errors are counted in the `tally`, not raised."""

    def __init__(self, dialect: Dialect, tally: Tally, login: str) -> None:
        self.dialect = dialect
        self.tally = tally
        self.login = login
        self.transport: WSTransport | None = None
        self.host = ""
        self._prefix = dialect.delivery
        self._receipt, self._receipt_end = dialect.receipt, dialect.receipt_end
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._receipts: dict[bytes, asyncio.Future[None]] = {}
        self._closing = False

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Greet, if it is the client's turn."""
        self.transport = transport
        if self.dialect.greets_first:
            self.say(self.dialect.hello(self.login, self.host))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Hand deliveries and receipts on; anything else is a control message."""
        payload = frame.get_payload_as_bytes()
        if payload.startswith(self._prefix):
            self.delivered(payload)
        elif payload.startswith(self._receipt):
            start = len(self._receipt)
            self.receipted(payload[start : payload.find(self._receipt_end, start)].rstrip(b"\r"))
        elif frame.msg_type is WSMsgType.CLOSE:
            self._close_heard(frame)
        else:
            self._control(payload)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Count a connection that the server ended."""
        if not self._closing:
            self.tally.lost += 1
            self._fail("connection lost")

    def delivered(self, payload: bytes) -> None:
        """Take a delivery. Here it is a refusal: a plain connection subscribes to errors only."""
        self.refused(payload)

    def refused(self, payload: bytes) -> None:
        """Count a message that the server refused."""
        self.tally.refused += 1
        self.tally.note(payload[:300].decode("utf-8", "replace"))

    def receipted(self, token: bytes) -> None:
        """Take a receipt: by default that of a subscription."""
        waiter = self._receipts.pop(token, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def say(self, text: bytes) -> None:
        """Write one text message now; after the end of the connection, do nothing."""
        if self.transport is not None:
            self.transport.send(WSMsgType.TEXT, text)

    def write(self, frames: bytes) -> None:
        """Write ready-made frames in one go."""
        if self.transport is not None and not self.transport.is_disconnected:
            self.transport.underlying_transport.write(frames)

    async def subscribe(self, number: int, destination: str) -> None:
        """Subscribe and return when the receipt came. Raises BenchFailed if it does not come."""
        receipt = asyncio.get_running_loop().create_future()
        self._receipts[self.dialect.token(number)] = receipt
        self.say(self.dialect.subscribe(number, destination))
        await self._answer(receipt, f"no receipt for the subscription to {destination}")

    async def ready(self) -> None:
        """Return once the session is open. Raises BenchFailed if it is refused."""
        await self._answer(self._ready, "no session")

    async def close(self) -> None:
        """Close in order; after two seconds without an answer, cut."""
        self._closing = True
        if self.transport is None or self.transport.is_disconnected:
            return
        self.transport.send_close(WSCloseCode.OK)
        try:
            async with asyncio.timeout(2):
                await self.transport.wait_disconnected()
        except TimeoutError:
            self.transport.disconnect(False)

    async def _answer(self, future: asyncio.Future[None], otherwise: str) -> None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await future
        except TimeoutError:
            raise BenchFailed(f"{self.login}: {otherwise} within {ANSWER_SECONDS:.0f} s") from None

    def _close_heard(self, frame: WSFrame) -> None:
        if not self._closing:
            self.tally.note(f"closed by the server: {frame.get_close_code()} {frame.get_close_reason() or ''}")
        if self.transport is not None:
            self.transport.send_close(frame.get_close_code())
            self.transport.disconnect()

    def _control(self, payload: bytes) -> None:
        heard = self.dialect.hear(payload)
        match heard.kind:
            case Kind.RECEIPT:
                self.receipted(heard.text)
            case Kind.READY if not self._ready.done():
                self._ready.set_result(None)
            case Kind.OPENED:
                self.say(self.dialect.hello(self.login, self.host))
            case Kind.PROBE:
                self.say(heard.text)
            case Kind.FAILED:
                self.tally.failed += 1
                self.tally.note(heard.text.decode("utf-8", "replace"))
                self._fail(heard.text.decode("utf-8", "replace"))

    def _fail(self, reason: str) -> None:
        for waiter in (self._ready, *self._receipts.values()):
            if not waiter.done():
                waiter.set_exception(BenchFailed(f"{self.login}: {reason}"))
                waiter.exception()  # whoever waits sees it; if nobody does, it is counted all the same


Made = TypeVar("Made", bound=Connection)


async def connect(made: Made, url: str, *, number: int = 0) -> Made:
    """Open the WebSocket and the session of `made`, the `number`th of this run.

    Raises BenchFailed if either is refused.
    """
    parts = urlsplit(url)
    made.host = parts.hostname or ""
    headers = {"Sec-WebSocket-Protocol": made.dialect.subprotocol} if made.dialect.subprotocol else None
    spread = number // PORTS_AN_ADDRESS
    source = {"local_addr": (f"127.0.0.{spread + 1}", 0)} if spread and made.host == "127.0.0.1" else {}
    try:
        await ws_connect(
            lambda: made,
            url,
            websocket_handshake_timeout=ANSWER_SECONDS,
            extra_headers=headers,
            read_buffer_init_size=4096,
            **source,  # type: ignore[arg-type]
        )
    except (OSError, TimeoutError, WSError) as error:
        raise BenchFailed(f"cannot connect to {url}: {error}") from None
    await made.ready()
    return made


async def connect_all(
    urls: Sequence[str], factory: Callable[[int], Made], count: int, destination: Callable[[Made], Iterable[str]]
) -> Sequence[Made]:
    """Open `count` connections, at `urls` in turn, a hundred at a time, each with its subscriptions in force.

    Raises BenchFailed at the first that is refused; those already open are closed.
    """
    made: list[Made] = []

    async def one(number: int) -> None:
        connection = factory(number)
        made.append(connection)
        await connect(connection, urls[number % len(urls)], number=number)
        for index, name in enumerate(destination(connection)):
            await connection.subscribe(index, name)

    try:
        for start in range(0, count, AT_ONCE):
            async with asyncio.TaskGroup() as tasks:
                for number in range(start, min(start + AT_ONCE, count)):
                    tasks.create_task(one(number))
    except* BenchFailed as failures:
        await close_all(made)
        raise _first(failures) from None
    return made


async def close_all(connections: Iterable[Connection]) -> None:
    """Close all, waiting at most two seconds."""
    await asyncio.gather(*(connection.close() for connection in connections))


def _first(failures: BaseExceptionGroup[BenchFailed]) -> BaseException:
    inner = failures.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
