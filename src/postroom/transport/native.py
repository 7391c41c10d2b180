"""The native WebSocket transport: picows parses and unmasks, the rules and all writing are ours.

picows gets a stand-in for the real transport (`_Outlet`). What it writes by itself is its handshake response,
which passes, and CLOSE frames for what it finds wrong. It looks one frame ahead, so that its CLOSE would leave
before the answer to the frame before: the outlet turns it into a failure of ours, after that frame.
"""

import asyncio
import logging
import socket
from collections import deque
from enum import Enum
from typing import Any, Final

import structlog
from multidict import CIMultiDict
from picows import (
    WSAutoPingStrategy,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
)
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # not public API: the version is bounded

from postroom.transport import deflate, websocket
from postroom.transport.base import Endpoint, Framing, Handshake, Receiver
from postroom.transport.deflate import Agreed, Compression
from postroom.transport.websocket import Fault

_log = structlog.get_logger("postroom.websocket")

_CLOSE_SECONDS: Final = 5.0
_READ_BUFFER: Final = 2048
_HIGH_WATER: Final = 65_536
_UNIX: Final = getattr(socket, "AF_UNIX", None)

# An adapter, not a Logger: picows makes a child Logger a connection of the latter.
_quiet = logging.getLogger("postroom.picows")
_quiet.setLevel(logging.CRITICAL + 1)
_PICOWS_LOG: Final[Any] = logging.LoggerAdapter(_quiet, {})


_TEXT, _BINARY = WSMsgType.TEXT, WSMsgType.BINARY
_NO_HEADERS: Final[CIMultiDict[str]] = CIMultiDict()


class State(Enum):
    """Where a connection stands (RFC 6455, section 7.1)."""

    OPEN = "open"
    CLOSING = "closing"  # our CLOSE is written, the peer's not yet here
    CLOSED = "closed"  # both are, or the pipe is gone


class NativeTransport(WSListener):
    """One WebSocket connection. `max_bytes` bounds a message, whole, in fragments or inflated.

    `compression` is what the handshake agreed on; None: nothing is compressed.
    """

    __slots__ = (
        "_assembly",
        "_code",
        "_compression",
        "_framing",
        "_held",
        "_max_bytes",
        "_pipe",
        "_reason",
        "_receiver",
        "_state",
        "_timer",
        "last_was_text",
    )

    def __init__(self, pipe: asyncio.Transport, max_bytes: int, compression: Compression | None = None) -> None:
        super().__init__()
        self._pipe = pipe
        self._max_bytes = max_bytes
        self._compression = compression
        self._framing = websocket.message if compression is None else deflate.framing(compression)
        self._receiver: Receiver | None = None
        self._assembly: websocket.Assembly | None = None
        self._held: deque[tuple[int, bytes]] | None = None
        self._state = State.OPEN
        self._timer: asyncio.TimerHandle | None = None
        self._code, self._reason = websocket.ABNORMAL, ""
        self.last_was_text = True
        pipe.set_write_buffer_limits(high=_HIGH_WATER)

    def attach(self, receiver: Receiver) -> None:
        """Who gets what comes; before the first frame."""
        self._receiver = receiver

    # ── what picows tells ─────────────────────────────────────────────────────────────────────────────

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """One frame, unmasked; whole, as far as picows checks."""
        if self._state is not State.OPEN:
            if frame.msg_type is WSMsgType.CLOSE and self._state is State.CLOSING:
                self._end()
            return
        try:
            kind = frame.msg_type
            if frame.rsv1 or frame.rsv2 or frame.rsv3:
                self._reserved(frame)
            elif (kind is _TEXT or kind is _BINARY) and frame.fin and self._assembly is None:
                payload = frame.get_payload_as_bytes()
                if kind is _BINARY:
                    self.last_was_text = False
                else:
                    self.last_was_text = True
                    if not payload.isascii() and not websocket.is_utf8(payload):
                        raise Fault(websocket.NOT_UTF8, "a text message is not UTF-8")
                if self._held is None and self._receiver is not None:
                    self._receiver.receive(payload)
                else:
                    self._deliver(payload)
            else:
                self._other(kind, bool(frame.fin), frame.get_payload_as_bytes())
        except Fault as fault:
            self.fail(fault.code, fault.reason)
        except Exception:
            _log.exception("a message could not be received")
            self.fail(websocket.INTERNAL_ERROR, "internal error")

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """The pipe is gone."""
        self._state = State.CLOSED
        if self._timer is not None:
            self._timer.cancel()
        self._tell_lost()

    def _tell_lost(self) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.lost(self._code, self._reason)

    def pause_writing(self) -> None:
        """The pipe's buffer is over its high-water mark: the outbox sees `buffered_bytes`."""

    def resume_writing(self) -> None:
        """The pipe's buffer is low again."""
        if self._receiver is not None and self._state is State.OPEN:
            self._receiver.writable()

    def _deliver(self, payload: bytes) -> None:
        if self._held is not None:
            self._held.append((websocket.TEXT if self.last_was_text else websocket.BINARY, payload))
        elif self._receiver is not None:
            self._receiver.receive(payload)

    def _other(self, kind: WSMsgType, final: bool, payload: bytes) -> None:
        """Fragments and control frames."""
        if kind is WSMsgType.PING:
            self._pipe.write(websocket.frame(websocket.PONG, payload))
        elif kind is WSMsgType.PONG:
            if self._receiver is not None:
                self._receiver.proved(payload)
        elif kind is WSMsgType.CLOSE:
            self._code, self._reason = websocket.parse_close(payload)
            self._pipe.write(websocket.close_frame(self._code))
            self._end()
        else:
            self._fragment(kind, final, payload)

    def _reserved(self, frame: WSFrame) -> None:
        """The first frame of a compressed message (RFC 7692, section 6), or a fault."""
        kind = frame.msg_type
        if self._compression is None:
            raise Fault(websocket.PROTOCOL_ERROR, "a reserved bit is set, and no extension was agreed on")
        if frame.rsv2 or frame.rsv3 or (kind is not _TEXT and kind is not _BINARY):
            raise Fault(websocket.PROTOCOL_ERROR, "a reserved bit is set that no extension has given a meaning")
        self._fragment(kind, bool(frame.fin), frame.get_payload_as_bytes(), compressed=True)

    def _fragment(self, kind: WSMsgType, final: bool, payload: bytes, *, compressed: bool = False) -> None:
        if kind is WSMsgType.CONTINUATION:
            if self._assembly is None:
                raise Fault(websocket.PROTOCOL_ERROR, "a continuation without a beginning")
        elif self._assembly is not None:
            raise Fault(websocket.PROTOCOL_ERROR, "a message began before the last one had ended")
        else:
            opcode = websocket.TEXT if kind is WSMsgType.TEXT else websocket.BINARY
            self._assembly = websocket.Assembly(opcode, self._max_bytes, compressed=compressed)
        assembly = self._assembly
        assembly.add(payload, final=final)
        if final:
            self._assembly = None
            self.last_was_text = assembly.text
            whole = assembly.whole()
            if assembly.compressed:
                whole = deflate.inflate(whole, self._max_bytes)
                if assembly.text and not websocket.is_utf8(whole):
                    raise Fault(websocket.NOT_UTF8, "a text message is not UTF-8")
            self._deliver(whole)

    # ── what the receiver asks for ────────────────────────────────────────────────────────────────────

    @property
    def framing(self) -> Framing:
        """Text where the payload is UTF-8, binary where it is not; compressed where that was agreed on and pays."""
        return self._framing

    def send(self, payload: bytes, *, text: bool) -> None:
        """Write one message of the kind that is wanted."""
        opcode = websocket.TEXT if text else websocket.BINARY
        compression = self._compression
        self.write(
            websocket.frame(opcode, payload) if compression is None else deflate.frame(opcode, payload, compression)
        )

    def write(self, data: bytes) -> None:
        """Send bytes that `framing` made."""
        if self._state is State.OPEN:
            self._pipe.write(data)

    def probe(self, token: bytes) -> bool:
        """PING; the PONG that echoes `token` proves what was written before it."""
        if self._state is State.OPEN:
            self._pipe.write(websocket.frame(websocket.PING, token))
        return True

    def close(self, code: int, reason: str = "") -> None:
        """Write CLOSE and wait a moment for the peer's (RFC 6455, section 7.1.2)."""
        if self._state is State.OPEN:
            self._state = State.CLOSING
            self._code, self._reason = code, reason
            self._pipe.write(websocket.close_frame(code, reason))
            self.resume_reading()
            self._timer = asyncio.get_running_loop().call_later(_CLOSE_SECONDS, self._pipe.abort)

    def fail(self, code: int, reason: str) -> None:
        """The peer broke a rule: CLOSE, then no more (RFC 6455, section 7.1.7)."""
        if self._state is State.OPEN:
            self.close(code, reason)
            self._state = State.CLOSED
            self._end_writing()

    def abort(self) -> None:
        """End at once."""
        self._state = State.CLOSED
        self._pipe.abort()

    def pause_reading(self) -> None:
        """Let the client wait. What picows has read already is kept, in order."""
        if self._held is None and self._state is State.OPEN:
            self._held = deque()
            self._pipe.pause_reading()

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""
        if self._held is None:
            return
        held, self._held = self._held, None
        while held and not self._paused() and self._state is State.OPEN and self._receiver is not None:
            self._receiver.receive(held.popleft()[1])
        if self._paused():
            self._held = deque((*held, *(self._held or ())))
        elif not self._pipe.is_closing():
            self._pipe.resume_reading()

    def _paused(self) -> bool:
        return self._held is not None

    @property
    def buffered_bytes(self) -> int:
        """Written, and not yet with the kernel."""
        return self._pipe.get_write_buffer_size()

    def _end(self) -> None:
        """Both have said CLOSE."""
        self._state = State.CLOSED
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_CLOSE_SECONDS, self._pipe.abort)
        if self._held is not None:
            self._held = None
            self._pipe.resume_reading()  # or the peer's end would not be seen
        self._end_writing()
        self._tell_lost()

    def _end_writing(self) -> None:
        """The peer ends the pipe once it has read all (RFC 6455, section 7.1.1), or the timer does.

        To close at once would reset a pipe on which more has come, and the peer might not read our CLOSE.
        """
        if self._pipe.can_write_eof():
            self._pipe.write_eof()
        else:
            self._pipe.close()


class _UnixSocket:
    """What picows takes for a Unix socket, which has no options of TCP for it to set."""

    __slots__ = ("_fileno",)

    def __init__(self, fileno: int) -> None:
        self._fileno = fileno

    def fileno(self) -> int:
        return self._fileno

    def setsockopt(self, *_: int) -> None:
        """Nothing to set."""

    def getsockopt(self, *_: int) -> int:
        return 0


class _Outlet:
    """What picows takes for its transport. The real one's buffer size is hidden, so that all it writes comes here."""

    __slots__ = ("_listener", "_open", "_pipe")

    def __init__(self, pipe: asyncio.Transport, listener: NativeTransport) -> None:
        self._pipe = pipe
        self._listener = listener
        self._open = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        found = self._pipe.get_extra_info(name, default)
        if name == "socket" and getattr(found, "family", None) == _UNIX:
            return _UnixSocket(found.fileno())
        return found

    def get_write_buffer_size(self) -> int:
        return 1

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._open:
            self._open = True
            self._pipe.write(data)
        elif data[0] == 0x80 | websocket.CLOSE:
            code, reason = int.from_bytes(data[2:4], "big"), bytes(data[4:]).decode(errors="replace")
            # Runs once the frames that came before the bad one were delivered.
            asyncio.get_running_loop().call_soon(self._listener.fail, code, reason)

    def writelines(self, data: list[Any]) -> None:
        self.write(b"".join(map(bytes, data)))

    def is_closing(self) -> bool:
        return self._pipe.is_closing()

    def close(self) -> None:
        """picows closes 10 ms after it found a fault; ours to do."""

    def abort(self) -> None:
        self._pipe.abort()


def upgrade(
    pipe: asyncio.Transport,
    endpoint: Endpoint,
    handshake: Handshake,
    key: str,
    rest: bytes,
    *,
    max_bytes: int,
    agreed: Agreed | None = None,
) -> None:
    """Answer a checked handshake with 101 and hand the pipe to picows; `rest` came behind the request's head."""
    listener = NativeTransport(pipe, max_bytes, agreed.compression if agreed is not None else None)
    headers = {} if handshake.subprotocol is None else {"Sec-WebSocket-Protocol": handshake.subprotocol}
    if agreed is not None:
        headers["Sec-WebSocket-Extensions"] = agreed.response
    response = WSUpgradeResponse.create_101_response(headers)
    kept: list[WSUpgradeRequest] = []

    def accept(request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        kept.append(request)
        return WSUpgradeResponseWithListener(response, listener)

    protocol = WSProtocol(
        None,
        None,
        False,
        accept,
        _PICOWS_LOG,
        True,
        None,
        False,
        10,
        10,
        WSAutoPingStrategy.PING_WHEN_IDLE,
        False,
        max_bytes,
        None,
        _READ_BUFFER,
    )
    pipe.set_protocol(protocol)
    protocol.connection_made(_Outlet(pipe, listener))
    head = (
        "GET / HTTP/1.1\r\nHost: postroom\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    )
    _feed(protocol, head.encode())
    # picows keeps request and response for as long as the connection lives: all share one empty set of headers.
    for request in kept:
        request.headers = _NO_HEADERS
    response.headers = _NO_HEADERS
    listener.attach(endpoint.accept(handshake, listener))
    if rest:
        _feed(protocol, rest)


def _feed(protocol: WSProtocol, data: bytes) -> None:
    view = memoryview(data)
    while view:
        buffer = protocol.get_buffer(-1)
        size = min(len(buffer), len(view))
        buffer[:size] = view[:size]
        protocol.buffer_updated(size)
        view = view[size:]
