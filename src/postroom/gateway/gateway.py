"""What drives one client's pipe: protocol events in; calls to router, hub and mailbox out."""

import asyncio
import secrets
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Final

import structlog

from postroom import stomp
from postroom.destination import AppPath
from postroom.errors import (
    AuthenticationFailed,
    LimitExceeded,
    PostroomError,
    ProtocolViolation,
    Refused,
    StoreUnavailable,
)
from postroom.gateway import answering, committing, proving, subscribing
from postroom.gateway.desk import Desk
from postroom.gateway.sending import Pending, message_of, permit
from postroom.gateway.watch import Late, Watch
from postroom.identity import Principal, SessionId
from postroom.outbox import Outbox
from postroom.session import Receipts, Session, Ticket, device_of
from postroom.store.base import Appended
from postroom.transport.base import Handshake, Transport
from postroom.wheel import TICK_SECONDS

_log = structlog.get_logger("postroom.gateway")

_VISIBLE_SECONDS: Final = 3.0
_NORMAL, _POLICY, _PROTOCOL, _INTERNAL = 1000, 1008, 1002, 1011


class Gateway:
    """One client: its transport below, its STOMP connection, and its session once it has authenticated.

    Frames are handled strictly in order, in the call that brings them. Where one must wait (an application's
    coroutine), all later ones wait behind it and the client is not read from.
    """

    __slots__ = (
        "_address",
        "_closed",
        "_desk",
        "_frames",
        "_handshake",
        "_held",
        "_most_in_a_tick",
        "_paused",
        "_pongs",
        "_rate_from",
        "_rate_second",
        "_session",
        "_stomp",
        "_transport",
        "_watch",
        "outbox",
        "slot",
    )

    def __init__(self, desk: Desk, handshake: Handshake, transport: Transport) -> None:
        limits = desk.limits
        self._desk = desk
        self._handshake: Handshake | None = handshake
        self._transport = transport
        self._stomp = stomp.Connection(
            limits=limits.frame,
            heart_beat=limits.heart_beat,
            server=desk.name,
            max_transactions=limits.transactions,
            append_missing_nul=limits.append_missing_nul and handshake.messages,
        )
        self.outbox = Outbox(transport, desk.flusher, max_bytes=limits.write_buffer_bytes, overflowed=self._overflowed)
        self._session: Session | None = None
        self._held: deque[stomp.Event] | None = None
        self._paused = False
        self._closed = False
        self._frames = 0
        self._pongs = 0
        self._most_in_a_tick = int(limits.frames_per_second * TICK_SECONDS)
        self._rate_second = 0.0
        self._rate_from = 0
        self._watch = Watch(desk.wheel.now)
        self.slot = 0
        desk.open.add(self)
        self._address = desk.client_of(handshake)
        desk.addresses[self._address] += 1
        desk.metrics.connections_accepted += 1
        desk.wheel.add(self, desk.wheel.now + limits.connect_seconds)

    # ── what the transport tells ──────────────────────────────────────────────────────────────────────

    def receive(self, data: bytes) -> None:
        """One message of the client: any number of frames, or a part of one."""
        if self._closed:
            return
        self._frames += 1
        wheel = self._desk.wheel
        if wheel.now != self._rate_second:
            self._rate_second, self._rate_from = wheel.now, self._frames
        elif self._frames - self._rate_from > self._most_in_a_tick:
            self._too_fast()
        session = self._session
        if session is not None and session.prober is not None and session.prober.wants_frames:
            proving.frame(self._desk, session, self._transport, frames=self._frames, now=wheel.now)
        for event in self._stomp.receive(data):
            if self._held is not None:
                self._held.append(event)
            else:
                self._step(event)

    def proved(self, token: bytes, *, alive: bool = True) -> None:
        """The client, or its system, answered a probe."""
        self._pongs += alive
        session = self._session
        if session is None or session.prober is None:
            return
        proving.answered(self._desk, session.prober, token, frames=self._frames)
        if not self._closed:
            proving.ask(session, self._transport, now=self._desk.wheel.now)

    def writable(self) -> None:
        """The transport has drained: write on, and go on with what waits in the logs."""
        self.outbox.drained()
        if self._session is not None:
            for entry in self._session.entries.values():
                if entry.follower is not None:
                    self._desk.mailbox.resume(entry.follower)

    def lost(self, code: int, reason: str) -> None:
        """The pipe is gone."""
        self._leave()

    # ── one event ─────────────────────────────────────────────────────────────────────────────────────

    def _step(self, event: stomp.Event) -> None:
        if self._closed:
            return
        try:
            self._ON[type(event)](self, event)
        except Refused as error:
            if isinstance(event, stomp.Subscribe):
                self._forget(event)
            self._refuse(error, event)
        except ProtocolViolation as error:
            self._violation(stomp.Violation(str(error), getattr(event, "receipt", None)))
        except AuthenticationFailed as error:
            self._desk.metrics.authentication_failures += 1
            self.fail(str(error), code=_POLICY)
        except Exception:
            _log.exception("a frame could not be handled", session=self._name)
            self.fail("internal error", receipt=getattr(event, "receipt", None), code=_INTERNAL)

    def _connect(self, event: stomp.Connect) -> None:
        desk = self._desk
        handshake, self._handshake = self._handshake, None
        if handshake is None:
            raise AuthenticationFailed("this connection is authenticated already")
        principal = desk.authentication.authenticate(handshake, event.headers)
        if len(desk.hub.sessions_of(principal.name)) >= desk.limits.sessions_per_user:
            raise LimitExceeded(f"a user has at most {desk.limits.sessions_per_user} sessions")
        session = Session(
            SessionId(secrets.token_urlsafe(16)),
            principal,
            outbox=self.outbox,
            receipts=Receipts(self._send_receipt),
            device=device_of(event.headers),
        )
        # Registered before it is answered: whoever sends to this user after CONNECTED finds it.
        self._session = session
        desk.hub.enter(principal.name, self)
        visible = desk.interest.user(principal.name) if desk.interest is not None else None
        if visible is None:
            self._welcome(session)
        else:
            self._hold(self._welcome_once(visible, session))

    def _welcome(self, session: Session) -> None:
        self._put(self._stomp.connected(session.id, session.principal.name))
        wheel = self._desk.wheel
        self._watch.last_heard = wheel.now
        self._look_again(wheel.now)

    def _look_again(self, now: float) -> None:
        due = self.check(now)
        if due is not None:
            self._desk.wheel.add(self, due)

    async def _welcome_once(self, visible: asyncio.Future[None], session: Session) -> None:
        # Other nodes find the user first. Where they cannot be told, this node serves its clients all the same.
        await asyncio.wait({visible}, timeout=_VISIBLE_SECONDS)
        if not self._closed:
            self._welcome(session)

    def _send(self, event: stomp.Send) -> None:
        desk, session = self._desk, self._session
        assert session is not None
        desk.metrics.received += 1
        route = desk.router.resolve(event.destination)
        if not route.open:
            permit(route, event, session.principal)
        user = session.principal.name
        if route.log is None:
            if type(route.destination) is AppPath:
                self._invoke(event, route.destination)
                return
            desk.router.route(route, message_of(route, event, user, desk.message_id()), _ignore)
            if event.receipt is not None:
                session.receipts.give(event.receipt)
            return
        message = message_of(route, event, user)
        pending = Pending(self, event, session.receipts.hold(event.receipt, len(event.body)))
        desk.router.route(route, message, pending, key=message.headers.get("idempotency-key"))
        if session.receipts.exceed(desk.limits.pending_appends, desk.limits.pending_append_bytes):
            self._pause()

    def _invoke(self, event: stomp.Send, path: AppPath) -> None:
        self._await(answering.invoke(self._desk, self._present(), path, event), event, _ignore)

    def _await(self, returned: Any, event: stomp.Send | stomp.Subscribe, done: Callable[[Any], None]) -> None:
        """Let `done` have what a handler returned, now or once it is there; then the receipt leaves."""
        receipts = self._present().receipts
        if answering.waits(returned):
            ticket = receipts.hold(event.receipt)
            self._hold(answering.finish(returned, ticket, done, self._refusal(event), session=self._name))
            return
        done(returned)
        if event.receipt is not None:
            receipts.give(event.receipt)

    def _refusal(self, event: stomp.Send | stomp.Subscribe) -> Callable[[Refused], None]:
        def refuse(error: Refused) -> None:
            if isinstance(event, stomp.Subscribe):
                self._forget(event)
            self._refuse(error, event)

        return refuse

    def _forget(self, event: stomp.Subscribe) -> None:
        self._stomp.forget(event.id)
        self._present().entries.pop(event.id, None)

    def _commit(self, event: stomp.Commit) -> None:
        session = self._present()
        planned = committing.plan(self._desk, session, event)
        if planned.waits:
            ticket = session.receipts.hold(event.receipt)
            self._hold(committing.do(self._desk, session, planned, ticket, self._refuse))
            return
        committing.do_at_once(self._desk, session, planned)
        if planned.acknowledges:
            self._after_confirms(event.receipt)
        elif event.receipt is not None:
            session.receipts.give(event.receipt)

    def _subscribe(self, event: stomp.Subscribe) -> None:
        session = self._present()
        if len(session.entries) >= self._desk.limits.subscriptions:
            raise LimitExceeded(f"a session has at most {self._desk.limits.subscriptions} subscriptions")
        target = subscribing.target_of(self._desk, session, event)
        version, framing = self._stomp.version, self._transport.framing
        if isinstance(target, AppPath):
            entry, returned = answering.subscribe(self._desk, session, event, target, version, framing)
            session.entries[event.id] = entry
            self._await(returned, event, lambda payload: answering.answer(self._desk, entry, payload))
            return
        entry = subscribing.enter(self._desk, session, event, target, version, framing)
        session.entries[event.id] = entry
        follower = entry.follower
        if follower is None:
            if event.receipt is not None:
                subscribing.in_force(entry, session.receipts.hold(event.receipt))
            return
        self.outbox.flushed = self._flushed
        ticket = session.receipts.hold(event.receipt)
        self._desk.mailbox.follow(follower, lambda: subscribing.ready(entry, follower, ticket), entry.visible)

    def _unsubscribe(self, event: stomp.Unsubscribe) -> None:
        session = self._present()
        entry = session.entries.pop(event.id, None)
        if entry is not None:
            subscribing.leave(self._desk, entry)
        self._after_confirms(event.receipt)

    def _ack(self, event: stomp.Ack | stomp.Nack) -> None:
        subscribing.acknowledge(self._desk, self._present(), event)
        self._after_confirms(event.receipt)

    def _after_confirms(self, receipt: str | None) -> None:
        if receipt is not None:
            ticket = self._present().receipts.hold(receipt)
            self._desk.mailbox.after_confirms(ticket.settle)

    def _done(self, event: stomp.Done) -> None:
        self._present().receipts.give(event.receipt)

    def _disconnect(self, event: stomp.Disconnect) -> None:
        session = self._session
        if session is None:
            self.close(_NORMAL)
            return
        ticket = session.receipts.hold(event.receipt)
        # Closed once all that was sent before is stored or refused, and every receipt has left.
        ticket.then = self.close
        self._desk.mailbox.after_confirms(ticket.settle)

    def _violation(self, event: stomp.Violation) -> None:
        self._desk.metrics.protocol_violations += 1
        self.fail(event.summary, receipt=event.receipt, detail=event.detail, code=_PROTOCOL, headers=event.headers)

    # ── waiting ───────────────────────────────────────────────────────────────────────────────────────

    def _hold(self, work: Any) -> None:
        self._held = deque()
        self._transport.pause_reading()
        self._desk.spawn(self._release(work))

    async def _release(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception:
            _log.exception("a frame could not be handled", session=self._name)
            self.fail("internal error", code=_INTERNAL)
        held, self._held = self._held, None
        while held and not self._holding():
            self._step(held.popleft())
        if self._holding():
            self._held = deque((*(held or ()), *(self._held or ())))
        elif not self._closed and not self._paused:
            self._transport.resume_reading()

    def _holding(self) -> bool:
        return self._held is not None

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._paused and not self._closed:
            self._paused = False
            if self._held is None:
                self._transport.resume_reading()

    def _too_fast(self) -> None:
        # The client waits until the wheel has turned: the kernel's buffers push back on it.
        self._pause()
        self._desk.wheel.add(self, self._desk.wheel.now)

    def settled(self, ticket: Ticket, event: stomp.Send, outcome: Appended | PostroomError) -> None:
        """A durable SEND is stored, or it is not."""
        if isinstance(outcome, Appended):
            ticket.settle()
        else:
            ticket.refuse()
            self._refuse(outcome, event)
        if self._paused and self._session is not None and self._has_room(self._session):
            self._resume()

    def _has_room(self, session: Session) -> bool:
        limits = self._desk.limits
        return not session.receipts.exceed(limits.pending_appends >> 1, limits.pending_append_bytes >> 1)

    def _flushed(self) -> None:
        """What was put is written: ask for proof of it, and go on with what waits in the logs."""
        session = self._session
        if session is None:
            return
        for entry in session.entries.values():
            if entry.follower is not None and entry.follower.tail.behind:
                self._desk.mailbox.resume(entry.follower)
        if self._closed:
            return
        first = session.prober is None
        asked = proving.ask(session, self._transport, now=self._desk.wheel.now)
        if not asked and not self._stomp.heart_beat[1]:
            _log.warning("no PING, no heart-beats: what ack:auto gets stops until the client sends", session=self._name)
        if first and not self._stomp.heart_beat[0] and session.prober is not None:
            # There was no deadline yet that is as near as the probe's.
            self._look_again(self._desk.wheel.now)

    # ── time ──────────────────────────────────────────────────────────────────────────────────────────

    def check(self, now: float) -> float | None:
        """Look at the deadlines: CONNECT, credentials, probes, heart-beats both ways."""
        if self._closed:
            return None
        try:
            return self._check(now)
        except Late as late:
            self.fail(str(late), code=_POLICY)
            return None

    def _check(self, now: float) -> float | None:
        desk, session, watch = self._desk, self._session, self._watch
        if session is None:
            return watch.connect(now, desk.limits.connect_seconds)
        if self._paused and self._has_room(session):
            self._resume()
        watch.heard(now, self._frames + self._pongs)
        expiry = watch.credentials(now, session.principal.expires_at, desk.clock.wall())
        proof = proving.check(session, self._transport, desk.limits, last_heard=watch.last_heard, now=now)
        if proof is None:
            _log.info("a client does not answer", session=self._name, seconds=desk.limits.probe_seconds)
            self._abort()
            return None
        send_ms, receive_ms = self._stomp.heart_beat
        due = min(expiry, proof, watch.silence(now, receive_ms))
        if not send_ms:
            return due
        if watch.quiet(self.outbox.writes):
            self._put(b"\n")
        return min(due, now + send_ms / 2000)

    # ── what the client is told ───────────────────────────────────────────────────────────────────────

    def _put(self, frame: bytes) -> None:
        self.outbox.put(self._transport.framing(frame))

    def _send_receipt(self, receipt: str, headers: dict[str, str] | None) -> None:
        if headers is None:
            self._put(self._stomp.receipt(receipt))
        else:
            self._put(stomp.encode_frame(self._stomp.version, "RECEIPT", {"receipt-id": receipt, **headers}))

    def _refuse(self, error: PostroomError, event: object) -> None:
        """Say on the session's error queue what is refused, and why; no receipt, no close."""
        self._desk.metrics.refused += 1
        session = self._session
        code = "store-unavailable" if isinstance(error, StoreUnavailable) else getattr(error, "code", "refused")
        _log.info("refused", session=self._name, code=code, reason=str(error))
        if session is not None:
            subscribing.report(self._desk, session, code, str(error), event)

    def fail(
        self,
        summary: str,
        *,
        receipt: str | None = None,
        detail: str = "",
        code: int = _PROTOCOL,
        headers: dict[str, str] | None = None,
    ) -> None:
        """ERROR with `summary`, then the close."""
        if not self._closed:
            _log.info("closing a session", session=self._name, reason=summary)
            self._put(self._stomp.error(summary, receipt, detail, headers))
            self.close(code, summary)

    def close(self, code: int = _NORMAL, reason: str = "") -> None:
        """Write what waits, say goodbye, and end."""
        if not self._closed:
            self.outbox.close()
            self._transport.close(code, reason)
            self._leave()

    def _abort(self) -> None:
        if not self._closed:
            self._transport.abort()
            self._leave()

    def _overflowed(self) -> None:
        self._desk.metrics.slow_consumers_cut += 1
        _log.warning("a client reads too slowly and is cut", session=self._name)
        self._abort()

    def _leave(self) -> None:
        if self._closed:
            return
        self._closed = True
        desk, session = self._desk, self._session
        self.outbox.drop()
        desk.wheel.discard(self)
        desk.open.discard(self)
        desk.left(self._address)
        self._handshake = None
        if session is not None:
            if desk.hub.leave(session.principal.name, self) and desk.interest is not None:
                desk.interest.user_left(session.principal.name)
            for entry in session.entries.values():
                subscribing.leave(desk, entry)
            session.entries.clear()

    # ── small things ──────────────────────────────────────────────────────────────────────────────────

    def _present(self) -> Session:
        assert self._session is not None, "the STOMP connection lets nothing pass before CONNECT"
        return self._session

    @property
    def _name(self) -> str:
        return self._session.id[:8] if self._session is not None else "-"

    @property
    def principal(self) -> Principal | None:
        """Who this is, once it has authenticated."""
        return self._session.principal if self._session is not None else None

    @property
    def settled_all(self) -> bool:
        """Whether nothing of this client waits for the store."""
        return self._session is None or not len(self._session.receipts)

    _ON: ClassVar[dict[type, Callable[["Gateway", Any], None]]] = {
        stomp.Send: _send,
        stomp.Subscribe: _subscribe,
        stomp.Unsubscribe: _unsubscribe,
        stomp.Ack: _ack,
        stomp.Nack: _ack,
        stomp.Done: _done,
        stomp.Commit: _commit,
        stomp.Connect: _connect,
        stomp.Disconnect: _disconnect,
        stomp.Violation: _violation,
    }


def _ignore(outcome: object) -> None:
    """A transient message has no outcome to wait for."""
