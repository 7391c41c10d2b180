"""SockJS 0.3.3 as an ASGI application: every transport, over one session handler."""

import contextlib
import secrets
from email.utils import formatdate
from typing import Final

from msgspec import structs

from postroom.clock import SystemClock
from postroom.errors import HandshakeRefused
from postroom.sockjs import headers, iframe
from postroom.sockjs.elsewhere import Elsewhere
from postroom.sockjs.exchange import NOT_FOUND, PLAIN, Exchange, Gone
from postroom.sockjs.info import info
from postroom.sockjs.options import Options
from postroom.sockjs.paths import METHODS, Kind, Place, place
from postroom.sockjs.sessions import Identify, Sessions
from postroom.sockjs.websocket import Heartbeats, framed
from postroom.sockjs.wires import RECEIVING
from postroom.transport.asgi import Application, Receive, Scope, Send, refuse, route_path, serve_websocket
from postroom.transport.base import Endpoint, Handshake
from postroom.transport.origin import origin_allowed

_GREETING: Final = b"Welcome to SockJS!\n"
_CORS: Final = frozenset({Kind.INFO, Kind.XHR, Kind.XHR_STREAMING, Kind.XHR_SEND, Kind.EVENTSOURCE})
_WEBSOCKETS: Final = frozenset({Kind.WEBSOCKET, Kind.RAW_WEBSOCKET})
_OLD_AND_NEW: Final = ("13", "8", "7")
_clock = SystemClock()


class SockJS:
    """A SockJS service at `prefix`, for the sessions that `endpoint` accepts.

    `endpoint.check` is asked before a session opens; `options.origins` are checked at every request. A session
    that `identify` gave a name to is served to that name alone. Requests for a session of another node are answered
    there, through `elsewhere`. Requests outside `prefix` go to `otherwise`.

    WebSockets: `route` gives a server of ours the endpoints below the prefix; every other ASGI server brings them
    as scopes of their own.
    """

    def __init__(
        self,
        prefix: str,
        endpoint: Endpoint,
        options: Options | None = None,
        *,
        identify: Identify | None = None,
        elsewhere: Elsewhere | None = None,
        otherwise: Application | None = None,
    ) -> None:
        self._prefix = prefix
        self._endpoint = endpoint
        self._options = options = options if options is not None else Options()
        self._otherwise = otherwise
        self._sessions = Sessions(endpoint, options, identify=identify, elsewhere=elsewhere)
        if elsewhere is not None:
            elsewhere.serve = self._serve_forwarded
        self._page = iframe.page(options.client_url)
        self._etag = iframe.etag(self._page)
        raw = structs.replace(endpoint, check=self._check, versions=_OLD_AND_NEW)
        self._endpoints = {
            Kind.RAW_WEBSOCKET: raw,
            Kind.WEBSOCKET: framed(raw, Heartbeats(options.heartbeat_seconds)),
        }

    @property
    def sessions(self) -> int:
        """How many sessions over HTTP there are."""
        return len(self._sessions)

    def route(self, path: str) -> Endpoint | None:
        """The WebSocket endpoint at `path`; None: there is none."""
        found = place(path[len(self._prefix) :]) if self.serves(path) else None
        return self._endpoints.get(found.kind) if found is not None else None

    def serves(self, path: str) -> bool:
        """Whether `path` is the service's, if only to say that there is nothing."""
        return path.startswith(self._prefix) and path[len(self._prefix) :][:1] in ("", "/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or one WebSocket."""
        path = "" if scope["type"] == "lifespan" else route_path(scope)
        if scope["type"] == "lifespan" or not self.serves(path):
            await self._outside(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._serve_websocket(scope, receive, send, path)
        else:
            with contextlib.suppress(Gone):
                below = place(path[len(self._prefix) :])
                await self._serve(Exchange(scope, receive, send, path=path), below)

    async def _serve_forwarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send, path=scope["path"], forwarded=True)
        await self._serve(exchange, place(scope["path"][len(self._prefix) :]))

    async def _outside(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._otherwise is not None:
            await self._otherwise(scope, receive, send)
        elif scope["type"] == "http":
            await Exchange(scope, receive, send, path="").answer(404, [PLAIN], NOT_FOUND)
        elif scope["type"] == "websocket":
            await receive()  # websocket.connect
            await refuse(scope, send, 404, "no WebSocket is served here")

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send, path: str) -> None:
        endpoint = self.route(path)
        if endpoint is None:
            await receive()  # websocket.connect
            await refuse(scope, send, 404, "no WebSocket is served here")
        else:
            await serve_websocket(scope, receive, send, endpoint, path=path, max_bytes=self._options.body_bytes)

    def _check(self, handshake: Handshake) -> None:
        if not self._options.websocket:
            raise HandshakeRefused(404, "no WebSocket is served here")
        if not origin_allowed(handshake, self._options.origins):
            raise HandshakeRefused(403, "this origin is not allowed")
        self._endpoint.check(handshake)

    # ── static places ─────────────────────────────────────────────────────────────────────────────────

    async def _serve(self, exchange: Exchange, found: Place | None) -> None:
        if found is None or not self._enabled(found.kind):
            await exchange.answer(404, [PLAIN], NOT_FOUND)
        elif exchange.method not in METHODS[found.kind]:
            await exchange.answer(405, [("Allow", ", ".join(METHODS[found.kind]))])
        elif found.kind in _WEBSOCKETS:
            await self._no_upgrade(exchange)
        elif found.kind is Kind.GREETING:
            await exchange.answer(200, [PLAIN], _GREETING)
        elif found.kind is Kind.IFRAME:
            await self._iframe(exchange)
        else:
            await self._dynamic(exchange, found)

    def _enabled(self, kind: Kind) -> bool:
        options = self._options
        if kind in (Kind.JSONP, Kind.JSONP_SEND):
            return options.jsonp
        if kind in (Kind.IFRAME, Kind.HTMLFILE):
            return options.iframe
        return options.websocket or kind not in _WEBSOCKETS

    async def _no_upgrade(self, exchange: Exchange) -> None:
        asked = exchange.handshake.headers
        wants = asked.get("upgrade", "").lower() == "websocket"
        said = b'"Connection" must be "Upgrade".' if wants else b'Can "Upgrade" only to "WebSocket".'
        await exchange.answer(400, [PLAIN], said)

    async def _iframe(self, exchange: Exchange) -> None:
        if exchange.handshake.headers.get("if-none-match") == self._etag:
            await exchange.answer(304, [("ETag", self._etag)])
            return
        about = [
            ("Content-Type", "text/html; charset=UTF-8"),
            ("ETag", self._etag),
            headers.framed_by(self._options.origins),
            *_cached(),
        ]
        await exchange.answer(200, about, self._page)

    # ── places that depend on who asks ────────────────────────────────────────────────────────────────

    async def _dynamic(self, exchange: Exchange, found: Place) -> None:
        handshake, origins = exchange.handshake, self._options.origins
        about = headers.cors(handshake, origins) if found.kind in _CORS else [("Vary", "Origin")]
        if found.session and self._options.cookie:
            about.append(headers.session_cookie(handshake.headers))
        if exchange.method == "OPTIONS":
            await exchange.answer(204, [*about, *headers.preflight(METHODS[found.kind]), *_cached()])
            return
        about.append(headers.NOT_CACHED)
        if found.kind is Kind.INFO:
            said = info(secrets.randbits(32), websocket=self._options.websocket, cookie_needed=self._options.cookie)
            await exchange.answer(200, [*about, ("Content-Type", "application/json; charset=UTF-8")], said)
        elif not origin_allowed(handshake, origins):
            await exchange.answer(403, [*about, PLAIN], b"this origin is not allowed")
        elif found.kind in RECEIVING:
            await self._sessions.receive(exchange, found, about)
        else:
            await self._sessions.send(exchange, found, about)


def _cached() -> headers.Headers:
    return headers.cached(formatdate(_clock.wall() + headers.YEAR_SECONDS, usegmt=True))
