"""WebSockets of any ASGI server (ASGI specification, "WebSocket", 2.3): portable, slower than the native transport.

The server answers PINGs and reads CLOSE frames itself, so that nothing here proves receipt (`probe` is False), and
`abort` can only end the application's part of the connection.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping, Sequence
from enum import Enum
from typing import Any, Final

import structlog

from postroom.errors import HandshakeRefused
from postroom.transport import websocket
from postroom.transport.base import Endpoint, Framing, Handshake, Receiver
from postroom.transport.handshake import UNIX, choose_subprotocol

_log = structlog.get_logger("postroom.asgi")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_CLOSE_SECONDS: Final = 5.0
_HIGH_WATER: Final = 4_096


class State(Enum):
    """Where a connection stands."""

    OPEN = "open"
    CLOSING = "closing"  # the close waits behind what was written
    CLOSED = "closed"


class AsgiTransport:
    """One WebSocket connection of an ASGI server. `max_bytes` bounds a message.

    `write` takes what the native transport takes, so that a frame is built once for clients of both. One task
    sends, in order; a tick's writes wake it once.
    """

    __slots__ = (
        "_buffered",
        "_closing",
        "_code",
        "_max_bytes",
        "_paused",
        "_peak",
        "_queue",
        "_reading",
        "_reason",
        "_receiver",
        "_state",
        "_timer",
        "_wake",
        "last_was_text",
    )

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._receiver: Receiver | None = None
        self._state = State.OPEN
        self._queue: deque[bytes] = deque()
        self._buffered = self._peak = 0
        self._wake = asyncio.Event()
        self._paused: asyncio.Future[None] | None = None
        self._reading: asyncio.Timeout | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._code, self._reason = websocket.ABNORMAL, ""
        self.last_was_text = True

    def attach(self, receiver: Receiver) -> None:
        """Who gets what comes; before `run`."""
        self._receiver = receiver

    # ── what the receiver asks for ────────────────────────────────────────────────────────────────────

    @property
    def framing(self) -> Framing:
        """Text where the payload is UTF-8, binary where it is not."""
        return websocket.message

    def send(self, payload: bytes, *, text: bool) -> None:
        """Write one message of the kind that is wanted."""
        self.write(websocket.frame(websocket.TEXT if text else websocket.BINARY, payload))

    def write(self, data: bytes) -> None:
        """Send bytes that `framing` made."""
        if self._state is State.OPEN:
            self._queue.append(data)
            self._buffered += len(data)
            self._peak = max(self._peak, self._buffered)
            self._wake.set()

    def probe(self, token: bytes) -> bool:
        """No: ASGI knows neither PING nor PONG."""
        return False

    def close(self, code: int, reason: str = "") -> None:
        """Close after what was written; the server does the closing handshake."""
        if self._state is State.OPEN:
            self._state = State.CLOSING
            self._code, self._reason = code, reason
            self._wake.set()
            self.resume_reading()
            self._timer = asyncio.get_running_loop().call_later(_CLOSE_SECONDS, self.abort)

    def abort(self) -> None:
        """End at once: the server drops the connection as soon as it sees that nobody serves it."""
        self._state = State.CLOSED
        self._queue.clear()
        self._buffered = 0
        if self._reading is not None:
            self._reading.reschedule(0.0)
        self.resume_reading()

    def pause_reading(self) -> None:
        """Let the client wait; the server holds back what it sends."""
        if self._paused is None and self._state is State.OPEN:
            self._paused = asyncio.get_running_loop().create_future()

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""
        paused, self._paused = self._paused, None
        if paused is not None and not paused.done():
            paused.set_result(None)

    @property
    def buffered_bytes(self) -> int:
        """Written, and not yet taken by the server, which takes nothing while its own buffer is full."""
        return self._buffered

    # ── the connection's life ─────────────────────────────────────────────────────────────────────────

    async def run(self, receive: Receive, send: Send) -> None:
        """Carry messages both ways until the connection is closed; then the receiver has lost it."""
        try:
            async with asyncio.TaskGroup() as tasks:
                writing = tasks.create_task(self._write_all(send))
                try:
                    async with asyncio.timeout(None) as self._reading:
                        await self._read_all(receive)
                except TimeoutError:
                    pass  # how `abort`, or the writer once it has written the close, ends the reading
                self._reading = None
                writing.cancel()
        finally:
            self._state = State.CLOSED
            if self._timer is not None:
                self._timer.cancel()
            receiver, self._receiver = self._receiver, None
            if receiver is not None:
                receiver.lost(self._code, self._reason)

    async def _read_all(self, receive: Receive) -> None:
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                if self._state is State.OPEN:
                    self._code = message.get("code", websocket.NO_CODE)
                    self._reason = message.get("reason") or ""
                return
            while self._paused is not None:
                await self._paused
            if self._state is State.OPEN and self._receiver is not None:
                self._take(message, self._receiver)

    def _take(self, message: Message, receiver: Receiver) -> None:
        text = message.get("text")
        try:
            payload = text.encode() if text is not None else bytes(message["bytes"])
        except UnicodeEncodeError:
            self.close(websocket.NOT_UTF8, "a text message is not UTF-8")
            return
        if len(payload) > self._max_bytes:
            self.close(websocket.TOO_BIG, f"a message has at most {self._max_bytes} bytes")
            return
        self.last_was_text = text is not None
        try:
            receiver.receive(payload)
        except Exception:
            _log.exception("a message could not be received")
            self.close(websocket.INTERNAL_ERROR, "internal error")

    async def _write_all(self, send: Send) -> None:
        try:
            while self._state is State.OPEN or self._queue:
                await self._wake.wait()
                self._wake.clear()
                await self._write_queue(send)
            if self._state is State.CLOSING:
                await send({"type": "websocket.close", "code": self._code, "reason": cut(self._reason)})
        except Exception as error:
            # Each server has its own way to say that the client is gone.
            _log.debug("the server takes no more", reason=repr(error))
            self._code = websocket.ABNORMAL
        self.abort()

    async def _write_queue(self, send: Send) -> None:
        queue = self._queue
        while queue:
            data = queue.popleft()
            for text, payload in messages(data):
                await send({"type": "websocket.send", "text": payload.decode()} if text else _binary(payload))
            self._buffered = max(0, self._buffered - len(data))
        if self._peak > _HIGH_WATER and self._state is State.OPEN and self._receiver is not None:
            self._peak = 0
            self._receiver.writable()


def _binary(payload: bytes) -> Message:
    return {"type": "websocket.send", "bytes": payload}


def cut(reason: str) -> str:
    """As much of a reason as a CLOSE frame takes."""
    return websocket.close_frame(websocket.NORMAL, reason)[4:].decode()


def messages(data: bytes) -> Iterator[tuple[bool, bytes]]:
    """What `framing` wrapped, from bytes of one frame or several: whether it is text, and the payload."""
    at = 0
    while at < len(data):
        size, start = data[at + 1], at + 2
        if size >= 126:
            width = 2 if size == 126 else 8
            size = int.from_bytes(data[start : start + width], "big")
            start += width
        yield data[at] & 0x0F == websocket.TEXT, data[start : start + size]
        at = start + size


def handshake_of(scope: Scope, path: str) -> Handshake:
    """The request behind a connection scope, HTTP's or WebSocket's; `path` without that of a mount."""
    headers = headers_of(scope)
    return Handshake(
        path=path,
        query=scope.get("query_string", b"").decode("latin-1"),
        headers=headers,
        peer_address=_peer_address(scope),
        secure=scope.get("scheme") in ("wss", "https"),
    )


def headers_of(scope: Scope) -> Mapping[str, str]:
    """The request's headers, as `Handshake` has them."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def route_path(scope: Scope) -> str:
    """The path below the mount. Parents either leave the mount's path in front or have taken it away."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    if root and (path == root or path.startswith(root + "/")):
        return path[len(root) :]
    return path


def _peer_address(scope: Scope) -> str:
    client, server = scope.get("client"), scope.get("server")
    if client and client[0]:
        return str(client[0])
    return UNIX if server and server[1] is None else ""


async def serve_websocket(
    scope: Scope, receive: Receive, send: Send, endpoint: Endpoint, *, path: str, max_bytes: int
) -> None:
    """Serve one connection at `endpoint`, from the handshake to its end."""
    await receive()  # websocket.connect
    handshake = handshake_of(scope, path)
    try:
        endpoint.check(handshake)
    except HandshakeRefused as refused:
        await refuse(scope, send, refused.status, refused.reason)
        return
    subprotocol = _subprotocol(scope, handshake, endpoint.subprotocols)
    await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})
    transport = AsgiTransport(max_bytes)
    agreed = Handshake(
        path=handshake.path,
        query=handshake.query,
        headers=handshake.headers,
        peer_address=handshake.peer_address,
        secure=handshake.secure,
        subprotocol=subprotocol,
    )
    transport.attach(endpoint.accept(agreed, transport))
    await transport.run(receive, send)


def _subprotocol(scope: Scope, handshake: Handshake, spoken: Sequence[str]) -> str | None:
    offered = ", ".join(scope.get("subprotocols") or ())
    return choose_subprotocol({**handshake.headers, "sec-websocket-protocol": offered}, spoken)


async def refuse(scope: Scope, send: Send, status: int, reason: str) -> None:
    """Say no before the upgrade: with `status` and `reason` where the server lets us, with its own 403 where not."""
    if "websocket.http.response" in (scope.get("extensions") or {}):
        body = (reason + "\n").encode()
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
        await send({"type": "websocket.http.response.start", "status": int(status), "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body})
    else:
        await send({"type": "websocket.close", "code": 1008, "reason": cut(reason)})


def mount(application: Application, *, at: str, beside: Application) -> Application:
    """An ASGI application that gives the paths under `at` to `application`, and the others to `beside`.

    The lifespan is `application`'s: for frameworks that have none, such as Django.
    """
    root = at.rstrip("/")

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await application(scope, receive, send)
            return
        path = route_path(scope)
        if path == root or path.startswith(root + "/"):
            whole = scope.get("root_path", "").rstrip("/") + root
            await application({**scope, "root_path": whole}, receive, send)
        else:
            await beside(scope, receive, send)

    return dispatch
