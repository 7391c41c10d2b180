"""STOMP over a plain TCP connection, with or without TLS: no frames around ours, and no PING.

What proves receipt here is the kernel's word that the peer's TCP has acknowledged the bytes. That is less than a
WebSocket's PONG: the bytes are on the client's machine, not yet in its process.
"""

import asyncio
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any, Final, cast

import structlog

from postroom.errors import HandshakeRefused
from postroom.transport.base import Endpoint, Framing, Handshake, Receiver
from postroom.transport.handshake import peer_address

_log = structlog.get_logger("postroom.tcp")

_HIGH_WATER: Final = 65_536
_FIRST_LOOK_SECONDS: Final = 0.002
_LOOK_SECONDS: Final = 0.25
_CLOSE_SECONDS: Final = 5.0
_SYSTEM: Final[str] = sys.platform
_SIOCOUTQ: Final = 0x5411  # Linux, tcp(7): bytes in the send queue that the peer has not acknowledged
_SO_NWRITE: Final = 0x1024  # macOS, getsockopt(2): the same

# A peer that is gone without a word is found within about two minutes, also where nobody promised heart-beats.
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))

Refusal = Callable[[str], bytes]
"""What is written, before the end, to a client that may not come in; given the reason."""


def tcp_listener(endpoint: Endpoint, refusal: Refusal) -> Callable[[], asyncio.Protocol]:
    """What to give `loop.create_server` for a port that speaks `endpoint`'s protocol without WebSocket."""

    def make() -> asyncio.Protocol:
        return TcpTransport(endpoint, refusal)

    return make


class TcpTransport(asyncio.Protocol):
    """One connection. Its `Handshake` has a peer address and no path, headers or sub-protocol."""

    __slots__ = (
        "_closing",
        "_endpoint",
        "_look_seconds",
        "_pipe",
        "_probe",
        "_receiver",
        "_refusal",
        "_socket",
        "_timer",
        "_written",
    )

    def __init__(self, endpoint: Endpoint, refusal: Refusal) -> None:
        self._endpoint = endpoint
        self._refusal = refusal
        self._pipe: asyncio.Transport | None = None
        self._socket: Any = None
        self._receiver: Receiver | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._probe: tuple[bytes, int] | None = None
        self._look_seconds = _FIRST_LOOK_SECONDS
        self._written = 0
        self._closing = False

    # ── what asyncio tells ────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is here: it is taken, or told why not."""
        self._pipe = pipe = cast("asyncio.Transport", transport)  # uvloop's has another base
        pipe.set_write_buffer_limits(high=_HIGH_WATER)
        self._socket = pipe.get_extra_info("socket")
        _keep_alive(self._socket)
        handshake = Handshake(
            path="",
            query="",
            headers={},
            peer_address=peer_address(pipe),
            secure=pipe.get_extra_info("ssl_object") is not None,
            messages=False,
        )
        try:
            self._endpoint.check(handshake)
        except HandshakeRefused as refused:
            pipe.write(self._refusal(refused.reason))
            self.close(refused.status)
            return
        self._receiver = self._endpoint.accept(handshake, self)

    def data_received(self, data: bytes) -> None:
        """Any number of frames, or a part of one."""
        if self._closing or self._receiver is None:
            return
        try:
            self._receiver.receive(data)
        except Exception:
            _log.exception("bytes could not be received")
            self.abort()

    def resume_writing(self) -> None:
        """The buffer is low again."""
        if self._receiver is not None and not self._closing:
            self._receiver.writable()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._closing = True
        self._stop_timer()
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.lost(1006, str(exc) if exc is not None else "")

    # ── what the receiver asks for ────────────────────────────────────────────────────────────────────

    @property
    def framing(self) -> Framing:
        """None: STOMP frames end by themselves."""
        return _plain

    def write(self, data: bytes) -> None:
        """Send bytes."""
        if not self._closing and self._pipe is not None:
            self._written += len(data)
            self._pipe.write(data)

    def probe(self, token: bytes) -> bool:
        """Proven once the peer's TCP has acknowledged all that was written before."""
        if not self._closing:
            self._probe = (token, self._written)
            self._look_seconds = _FIRST_LOOK_SECONDS
            self._stop_timer()
            self._timer = asyncio.get_running_loop().call_later(self._look_seconds, self._look)
        return True

    def close(self, code: int, reason: str = "") -> None:
        """End once all is written; a client that does not read has a moment. TCP has no codes and no reasons."""
        if not self._closing and self._pipe is not None:
            self._closing = True
            self._stop_timer()
            if self._pipe.can_write_eof():
                # What the client has sent and nobody read would turn a close into a reset, which can overtake
                # the last words. So the end is said first, and the rest read and dropped.
                self._pipe.resume_reading()
                self._pipe.write_eof()
            else:
                self._pipe.close()
            self._timer = asyncio.get_running_loop().call_later(_CLOSE_SECONDS, self._pipe.abort)

    def abort(self) -> None:
        """End at once."""
        self._closing = True
        if self._pipe is not None:
            self._pipe.abort()

    def pause_reading(self) -> None:
        """Let the client wait: its TCP pushes back on it."""
        if not self._closing and self._pipe is not None:
            self._pipe.pause_reading()

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""
        if not self._closing and self._pipe is not None:
            self._pipe.resume_reading()

    @property
    def buffered_bytes(self) -> int:
        """Written, and not yet with the kernel."""
        return self._pipe.get_write_buffer_size() if self._pipe is not None else 0

    # ── proof ─────────────────────────────────────────────────────────────────────────────────────────

    def _look(self) -> None:
        self._timer = None
        probe = self._probe
        if probe is None or self._closing:
            return
        token, written = probe
        # With TLS what is on its way is counted in more bytes than were written: that errs on the safe side.
        if self.buffered_bytes + _unacknowledged(self._socket) <= self._written - written:
            self._probe = None
            if self._receiver is not None:
                self._receiver.proved(token, alive=False)
            return
        self._look_seconds = min(self._look_seconds * 2, _LOOK_SECONDS)
        self._timer = asyncio.get_running_loop().call_later(self._look_seconds, self._look)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _plain(payload: bytes) -> bytes:
    return payload


def _keep_alive(sock: Any) -> None:
    if sock is None:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _unacknowledged(sock: Any) -> int:
    """Bytes that the kernel has and the peer's has not acknowledged; 0 where the system does not tell."""
    if sock is None or sock.fileno() < 0:
        return 0
    if _SYSTEM == "linux":
        import fcntl

        return cast("int", struct.unpack("i", fcntl.ioctl(sock.fileno(), _SIOCOUTQ, b"\0" * 4))[0])
    if _SYSTEM == "darwin":
        return cast("int", sock.getsockopt(socket.SOL_SOCKET, _SO_NWRITE))
    return 0
