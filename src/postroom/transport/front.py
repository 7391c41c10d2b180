"""The two ways in. uvicorn owns the port and serves HTTP; WebSocket upgrades at our paths go to picows.

`Front` is uvicorn's `http` protocol class: it looks at the first request's head and hands the raw connection
on, so that nothing which came in the same segment is lost. `KeptAlive` serves HTTP, and upgrades of ours that
come later on a connection which was used for HTTP before.
"""

import asyncio
import sys
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, cast

import httptools
import structlog
from msgspec import Struct, structs
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from postroom.errors import HandshakeRefused
from postroom.transport.base import Endpoint, Handshake, Route
from postroom.transport.deflate import Compression, negotiate
from postroom.transport.direct import Direct, offer
from postroom.transport.handshake import (
    RequestHead,
    check_upgrade,
    choose_subprotocol,
    page_headers,
    parse_head,
    peer_address,
    refusal,
)
from postroom.transport.native import upgrade

_log = structlog.get_logger("postroom.front")

_END: Final = b"\r\n\r\n"
_ENDLESS: Final = sys.maxsize >> 1


class FrontLimits(Struct, frozen=True):
    """What a client may do before it has said what it wants, and what a WebSocket may carry.

    `compression` None: permessage-deflate is not agreed to.
    """

    head_seconds: float = 10.0
    head_bytes: int = 16_384
    max_message_bytes: int = 1_048_576
    compression: Compression | None = None


def front(route: Route, limits: FrontLimits) -> Callable[..., asyncio.Protocol]:
    """What to give `uvicorn.Config` as `http`, for the endpoints that `route` names."""

    def make(**kwargs: Any) -> asyncio.Protocol:
        return Front(route, limits, kwargs)

    return make


class Front(asyncio.Protocol):
    """Looks at the first request's head, then hands the connection on and is gone."""

    __slots__ = ("_buffer", "_limits", "_made", "_pipe", "_route", "_timer")

    def __init__(self, route: Route, limits: FrontLimits, made: dict[str, Any]) -> None:
        self._route = route
        self._limits = limits
        self._made = made
        self._buffer = b""
        self._pipe: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is here."""
        self._pipe = cast("asyncio.Transport", transport)  # uvloop's has another base
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._limits.head_seconds, self._too_slow)

    def data_received(self, data: bytes) -> None:
        """A part of the head, or all of it and more."""
        self._buffer += data
        end = self._buffer.find(_END)
        if 0 <= end <= self._limits.head_bytes:
            self._head(self._buffer[:end], self._buffer[end + len(_END) :])
        elif len(self._buffer) > self._limits.head_bytes:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the request's head is too large")

    def connection_lost(self, exc: Exception | None) -> None:
        """It went before it had said what it wants."""
        self._done()

    def _head(self, head: bytes, rest: bytes) -> None:
        pipe = self._pipe
        assert pipe is not None
        request = parse_head(head.lstrip(b"\r\n"))
        try:
            endpoint = self._route(request.path) if request is not None and request.upgrades else None
            if request is not None and endpoint is not None:
                self._done()
                open_websocket(pipe, endpoint, request, rest, self._limits)
                return
        except HandshakeRefused as refused:
            self._refuse(refused.status, refused.reason)
            return
        self._done()
        http = KeptAlive(self._route, self._limits, self._made)
        http.connection_made(pipe)
        pipe.set_protocol(http)
        http.data_received(self._buffer)

    def _refuse(self, status: int, reason: str) -> None:
        self._done()
        if self._pipe is not None and not self._pipe.is_closing():
            self._pipe.write(refusal(status, reason))
            self._pipe.close()

    def _too_slow(self) -> None:
        self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"no request within {self._limits.head_seconds:g} s")

    def _done(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class KeptAlive(HttpToolsProtocol):
    """HTTP by uvicorn, but for upgrades at our paths."""

    def __init__(self, route: Route, limits: FrontLimits, made: dict[str, Any]) -> None:
        super().__init__(**made)
        self._route = route
        self._limits = limits
        self._head_timer: asyncio.TimerHandle | None = None
        self._direct: Direct | None = None

    def data_received(self, data: bytes) -> None:
        """As uvicorn's own, but what stands behind an upgrade request's head is not dropped."""
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self._stop_timer()
            self.send_400_response("Invalid HTTP request received.")
        except httptools.HttpParserUpgrade as found:
            self._stop_timer()
            self._upgrade(data[found.args[0] :])

    def on_message_begin(self) -> None:
        """A request began: its head has a time limit."""
        super().on_message_begin()
        self._head_timer = self.loop.call_later(self._limits.head_seconds, self._too_slow)

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._stop_timer()
        before = self.cycle
        super().on_headers_complete()
        cycle = self.cycle
        if cycle is None or cycle is before:
            return  # an upgrade
        if self.parser.get_http_version() == "1.0":
            unchunked(cycle)
        if before is None or before.response_complete:  # else it waits for its turn
            self._direct = offer(cycle)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._stop_timer()
        super().connection_lost(exc)
        if self._direct is not None:
            self._direct.lost()

    def _upgrade(self, rest: bytes) -> None:
        headers: dict[str, str] = {}
        for raw_name, raw_value in self.headers:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        request = RequestHead(
            self.parser.get_method().decode("ascii"),
            self.url.decode("latin-1"),
            f"HTTP/{self.parser.get_http_version()}",
            headers,
        )
        try:
            endpoint = self._route(request.path) if request.upgrades else None
            if endpoint is None:
                self._not_ours()
                return
            self.connections.discard(self)
            open_websocket(self.transport, endpoint, request, rest, self._limits)
        except HandshakeRefused as refused:
            self._say_no(refused.status, refused.reason)

    def _not_ours(self) -> None:
        if self._should_upgrade():
            self.handle_websocket_upgrade()
        else:
            self._say_no(HTTPStatus.NOT_FOUND, "no WebSocket is served here")

    def _say_no(self, status: int, reason: str) -> None:
        self.transport.write(refusal(status, reason))
        self.transport.close()

    def _too_slow(self) -> None:
        if not self.transport.is_closing():
            self._say_no(HTTPStatus.REQUEST_TIMEOUT, f"no request within {self._limits.head_seconds:g} s")

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def unchunked(cycle: RequestResponseCycle) -> None:
    """Let a body of unknown length end with the connection: HTTP/1.0 knows no chunks, which uvicorn forgets."""
    send = cycle.send

    async def send_plain(message: Any) -> None:
        if message["type"] == "http.response.start" and not _has_length(message):
            cycle.chunked_encoding = False
            cycle.expected_content_length = sys.maxsize
        elif message["type"] == "http.response.body" and cycle.expected_content_length > _ENDLESS:
            cycle.expected_content_length = sys.maxsize if message.get("more_body") else len(message.get("body", b""))
        await send(message)

    cycle.send = send_plain  # type: ignore[method-assign]


def _has_length(message: Any) -> bool:
    return any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))


def open_websocket(
    pipe: asyncio.Transport, endpoint: Endpoint, request: RequestHead, rest: bytes, limits: FrontLimits
) -> None:
    """Check the handshake and, if all is well, upgrade. Raises HandshakeRefused."""
    key = check_upgrade(request, endpoint.versions)
    handshake = Handshake(
        path=request.path,
        query=request.query,
        headers=page_headers(request),
        peer_address=peer_address(pipe),
        secure=pipe.get_extra_info("ssl_object") is not None,
    )
    endpoint.check(handshake)
    subprotocol = choose_subprotocol(request.headers, endpoint.subprotocols)
    if subprotocol is not None:
        handshake = structs.replace(handshake, subprotocol=subprotocol)
    offers = request.headers.get("sec-websocket-extensions")
    agreed = negotiate(offers, limits.compression) if offers and limits.compression is not None else None
    upgrade(pipe, endpoint, handshake, key, rest, max_bytes=limits.max_message_bytes, agreed=agreed)
