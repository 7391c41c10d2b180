"""Requests that receive and send: to sessions here, to those of other nodes, and the opening of new ones."""

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from postroom.errors import HandshakeRefused
from postroom.sockjs import framing, headers, payload
from postroom.sockjs.elsewhere import Elsewhere, HomeLost, Outcome
from postroom.sockjs.exchange import NOT_FOUND, PLAIN, Exchange, Gone, TooLarge
from postroom.sockjs.headers import Headers
from postroom.sockjs.options import Options
from postroom.sockjs.paths import Kind, Place
from postroom.sockjs.polling import Owner, PollingTransport, Table
from postroom.sockjs.receiving import Response
from postroom.sockjs.session import INTERRUPTED
from postroom.sockjs.wires import BadCallback, Wire, wire
from postroom.transport.base import Endpoint, Handshake
from postroom.transport.origin import origin_allowed

Identify = Callable[[Handshake], str | None]
"""Whom a request's credentials name; None: nobody. Raises nothing."""

_CLOSE = framing.close(*INTERRUPTED)


class Sessions:
    """The sessions of a service over HTTP."""

    def __init__(
        self,
        endpoint: Endpoint,
        options: Options,
        *,
        identify: Identify | None,
        elsewhere: Elsewhere | None,
    ) -> None:
        self._endpoint = endpoint
        self._options = options
        self._identify = identify
        self._elsewhere = elsewhere
        self._table = Table()
        if elsewhere is not None:
            self._table.forgotten = elsewhere.claims.release

    def __len__(self) -> int:
        return len(self._table)

    # ── sending ───────────────────────────────────────────────────────────────────────────────────────

    async def send(self, exchange: Exchange, found: Place, about: Headers) -> None:
        """Answer a request that brings messages."""
        try:
            body = await exchange.body(self._options.body_bytes)
            messages = _messages(exchange, found.kind, body)
            transport = self._table.find(found.session)
            if transport is not None:
                await self._take(exchange, found.kind, about, transport, messages)
            else:
                await self._send_elsewhere(exchange, found, about, body)
        except TooLarge:
            said = f"a request's body has at most {self._options.body_bytes} bytes"
            await exchange.answer(413, [*about, PLAIN, ("Connection", "close")], said.encode())
        except payload.BadPayload as error:
            await exchange.answer(500, [*about, PLAIN], str(error).encode())
        except HandshakeRefused as refused:
            await exchange.answer(refused.status, [*about, PLAIN], refused.reason.encode())
        except Gone:
            pass  # the client has left

    async def _take(
        self, exchange: Exchange, kind: Kind, about: Headers, transport: PollingTransport, messages: list[bytes]
    ) -> None:
        if not self._owns(exchange.handshake, transport):
            raise HandshakeRefused(403, "this session is another's")
        await transport.receive(messages)
        if kind is Kind.XHR_SEND:
            await exchange.answer(204, [*about, PLAIN])
        else:
            await exchange.answer(200, [*about, PLAIN], b"ok")

    async def _send_elsewhere(self, exchange: Exchange, found: Place, about: Headers, body: bytes) -> None:
        elsewhere = self._elsewhere
        try:
            home = None
            if elsewhere is not None and not exchange.forwarded:
                home = await elsewhere.claims.find(found.session)
        except HomeLost:
            home = None
        if elsewhere is None or home is None:
            await exchange.answer(404, [*about, PLAIN], NOT_FOUND)
        elif await elsewhere.forward(exchange, home, body) is Outcome.NOT_BEGUN:
            raise HandshakeRefused(503, "the session's node does not answer")

    # ── receiving ─────────────────────────────────────────────────────────────────────────────────────

    async def receive(self, exchange: Exchange, found: Place, about: Headers) -> None:
        """Answer a request that waits for frames; the first one opens the session."""
        try:
            dress = wire(found.kind, _callback(exchange.handshake.query))
        except BadCallback as error:
            await exchange.answer(500, [*about, PLAIN], str(error).encode())
            return
        if found.kind is Kind.HTMLFILE:
            about.append(headers.framed_by(self._options.origins))
        named = [*about, ("Content-Type", dress.content_type)]
        try:
            transport, home = await self._find_or_open(exchange.handshake, found.session)
            if transport is not None:
                await Response(exchange, transport, dress, named, max_bytes=self._options.response_bytes).run()
            elif exchange.forwarded:
                await _close(exchange, dress, named)
            else:
                await self._receive_elsewhere(exchange, home, dress, named)
        except HomeLost:
            await _close(exchange, dress, named)
        except HandshakeRefused as refused:
            await exchange.answer(refused.status, [*about, PLAIN], refused.reason.encode())

    async def _receive_elsewhere(self, exchange: Exchange, home: Any, dress: Wire, named: Headers) -> None:
        assert self._elsewhere is not None
        outcome = await self._elsewhere.forward(exchange, home, b"")
        if outcome is Outcome.NOT_BEGUN:
            await _close(exchange, dress, named)
        elif outcome is Outcome.BROKEN and dress.streams:
            await exchange.part(dress.dress(_CLOSE), last=True)

    async def _find_or_open(self, handshake: Handshake, session: str) -> tuple[PollingTransport | None, Any]:
        """The session here, if need be a new one, or its home on another node."""
        transport = self._table.find(session)
        if transport is None and self._elsewhere is not None:
            claims = self._elsewhere.claims
            home = await claims.find(session)
            if home is None:
                self._endpoint.check(handshake)
                home = await claims.claim(session)
            if home is not None:
                return None, home
            transport = self._table.find(session)
        if transport is None:
            transport = self._open(handshake, session)
        elif not self._owns(handshake, transport):
            raise HandshakeRefused(403, "this session is another's")
        return transport, None

    def _open(self, handshake: Handshake, session: str) -> PollingTransport:
        try:
            self._endpoint.check(handshake)
        except HandshakeRefused:
            if self._elsewhere is not None:
                self._elsewhere.claims.release(session)
            raise
        transport = PollingTransport(self._table, session, self._options, self._owner(handshake))
        transport.begin(self._endpoint.accept(handshake, transport))
        return transport

    # ── whose session it is ───────────────────────────────────────────────────────────────────────────

    def _owner(self, handshake: Handshake) -> Owner:
        # A page's own requests have an Origin or not, by their method; those of other origins always have one.
        own = origin_allowed(handshake, ())
        who = self._identify(handshake) if self._identify is not None else None
        return Owner("" if own else handshake.headers["origin"], who)

    def _owns(self, handshake: Handshake, transport: PollingTransport) -> bool:
        opened, now = transport.owner, self._owner(handshake)
        return now.origin == opened.origin and (opened.who is None or now.who == opened.who)


def _messages(exchange: Exchange, kind: Kind, body: bytes) -> list[bytes]:
    if kind is Kind.XHR_SEND:
        return payload.messages(body)
    return payload.form_messages(body, exchange.handshake.headers.get("content-type", ""))


def _callback(query: str) -> str | None:
    fields = parse_qs(query, max_num_fields=100)
    found = fields.get("c") or fields.get("callback")
    return found[0] if found else None


async def _close(exchange: Exchange, dress: Wire, named: Headers) -> None:
    await exchange.answer(200, named, dress.prelude + dress.dress(_CLOSE))
