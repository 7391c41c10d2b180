"""A transport over HTTP requests that come and go: the session's state, its client's receiver, and its deadlines.

All sessions of a service share one timer.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from msgspec import Struct

from postroom.clock import Clock, SystemClock
from postroom.sockjs import framing
from postroom.sockjs.options import Options
from postroom.sockjs.session import Session
from postroom.transport.base import Framing, Receiver
from postroom.wheel import TICK_SECONDS, Wheel

_log = structlog.get_logger("postroom.sockjs")

_ABNORMAL: Final = 1006
_NEWS_SECONDS: Final = 0.2
_NORMAL: Final = 1000
_INTERNAL_ERROR: Final = 1011


def outward(code: int, reason: str) -> tuple[int, str]:
    """Code and reason as a SockJS client is told them: the normal end is 3000, `Go away!`."""
    return (3000, reason or "Go away!") if code == _NORMAL else (code, reason)


class Table:
    """The sessions of one service by their id, and the timer that looks at their deadlines."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.forgotten: Callable[[str], None] | None = None
        self._wheel = Wheel(clock if clock is not None else SystemClock())
        self._sessions: dict[str, PollingTransport] = {}
        self._turning = False

    def find(self, session: str) -> "PollingTransport | None":
        """The session with this id."""
        return self._sessions.get(session)

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def now(self) -> float:
        """Monotonic seconds, a tick old at the most."""
        return self._wheel.now

    def add(self, session: str, transport: "PollingTransport") -> None:
        """A new session."""
        self._sessions[session] = transport
        if not self._turning:
            self._turning = True
            self._wheel.turn()
            asyncio.get_running_loop().call_later(TICK_SECONDS, self._turn)

    def forget(self, session: str) -> None:
        """It is over."""
        transport = self._sessions.pop(session, None)
        if transport is not None:
            self._wheel.discard(transport)
            if self.forgotten is not None:
                self.forgotten(session)

    def watch(self, transport: "PollingTransport", due: float) -> None:
        """Look at its deadlines at `due`."""
        self._wheel.add(transport, due)

    def _turn(self) -> None:
        self._wheel.turn()
        self._turning = bool(self._sessions)
        if self._turning:
            asyncio.get_running_loop().call_later(TICK_SECONDS, self._turn)


class Owner(Struct, frozen=True):
    """Whose a session is: the origin of the page (empty: the service's own), and whom its credentials name."""

    origin: str
    who: str | None


class PollingTransport:
    """The pipe to a client that comes by HTTP requests. A write waits here for its receiving request.

    `owner` is what every request for the session must show: its id is a capability, but not for everybody.
    """

    __slots__ = (
        "_attachment",
        "_id",
        "_options",
        "_receiver",
        "_resumed",
        "_since",
        "_table",
        "_unsettled",
        "owner",
        "session",
        "slot",
    )

    def __init__(self, table: Table, session_id: str, options: Options, owner: Owner) -> None:
        self.session = Session()
        self.owner = owner
        self.slot = 0
        self._id = session_id
        self._table = table
        self._options = options
        self._receiver: Receiver | None = None
        self._attachment: Attachment | None = None
        self._unsettled: Attachment | None = None
        self._resumed: asyncio.Event | None = None
        table.add(session_id, self)
        self._since = table.now
        self._look_again()

    def begin(self, receiver: Receiver) -> None:
        """Who gets what comes; before the first message."""
        self._receiver = receiver

    # ── what the receiver asks for ────────────────────────────────────────────────────────────────────

    @property
    def framing(self) -> Framing:
        """One message of an array: equal for all sessions over HTTP."""
        return framing.element

    def write(self, data: bytes) -> None:
        """Send bytes that `framing` made. A client that lets more than `pending_bytes` wait is cut."""
        self.session.write(data)
        if self.session.pending_bytes > self._options.pending_bytes:
            _log.warning("a client fetches too slowly and is cut", bytes=self.session.pending_bytes)
            self.abort()
        else:
            self._wake()

    def probe(self, token: bytes) -> bool:
        """The next receiving request proves what was written before."""
        if self.session.closing:
            return True
        if self.session.probe(token):
            # The request that is open was the proof. Whether anybody is still there it does not tell.
            asyncio.get_running_loop().call_soon(self._proved, token)
        else:
            self._look_again()
        return True

    def close(self, code: int, reason: str = "") -> None:
        """The client gets what was written, then the close frame; it has the disconnect delay to fetch them."""
        if not self.session.closing:
            self.session.close(*outward(code, reason))
            self._after_close()

    def abort(self) -> None:
        """Drop what it has not fetched, and let it know at its next request; one that does not read is cut off."""
        self.session.interrupt()
        self._after_close()
        if self._attachment is not None and self._attachment.cut is not None:
            self._attachment.cut()
        asyncio.get_running_loop().call_soon(self._over, _ABNORMAL, "cut")

    def pause_reading(self) -> None:
        """Let sending requests wait for their answer."""
        if self._resumed is None:
            self._resumed = asyncio.Event()

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""
        if self._resumed is not None:
            self._resumed.set()
            self._resumed = None

    @property
    def buffered_bytes(self) -> int:
        """Written, and not yet taken by a receiving request."""
        return self.session.pending_bytes

    # ── what requests do ──────────────────────────────────────────────────────────────────────────────

    async def receive(self, messages: Sequence[bytes]) -> None:
        """A sending request brought these. What comes while the session ends is dropped."""
        for message in messages:
            while self._resumed is not None:
                await self._resumed.wait()
            if self.session.closing or self._receiver is None:
                return
            try:
                self._receiver.receive(message)
            except Exception:
                _log.exception("a message could not be received")
                self.close(_INTERNAL_ERROR, "internal error")

    def attach(self) -> "Attachment":
        """A receiving request begins; there must be no other."""
        self._attachment = attachment = Attachment(self.session)
        self._since = self._table.now
        if self._options.heartbeat_seconds < self._options.disconnect_seconds:
            self._look_again()  # what is waited for is nearer than what was
        for token in self.session.attach():
            if self._receiver is not None:
                self._receiver.proved(token)
        return attachment

    def take(self) -> bytes | None:
        """The next frame for the response that is open; None: nothing to say."""
        held = self.session.pending_bytes
        frame = self.session.take()
        attachment = self._attachment
        if attachment is not None:
            if frame is None and attachment.beat:
                frame = framing.HEARTBEAT
            attachment.beat = False
        if frame is None:
            return None
        self._since = self._table.now
        if held and self._receiver is not None:
            self._receiver.writable()
        if self.session.said_goodbye:
            self._over(_NORMAL, "")
        return frame

    def complete(self, attachment: "Attachment") -> None:
        """The response has all that it will have. Another request may come; it waits until this one is `settled`."""
        if self._attachment is attachment:
            self._attachment = None
            self._unsettled = attachment
            self.session.detach()
            self._since = self._table.now
            self._look_again()

    def settled(self, attachment: "Attachment") -> None:
        """All of a complete response was written to the client's connection."""
        if self._unsettled is attachment:
            self._unsettled = None
            attachment.settled.set()

    async def vacant(self) -> bool:
        """Whether another receiving request may begin. News of the end of the last one may be on its way.

        While the last bytes of a complete response are being written by another node, it waits for those.
        """
        if self._attachment is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_NEWS_SECONDS):
                    await self._attachment.settled.wait()
        while self._unsettled is not None:
            await self._unsettled.settled.wait()
        return self._attachment is None

    def interrupted(self, attachment: "Attachment") -> None:
        """The response has ended; where it was not complete and settled, nobody knows what the client got."""
        if attachment in (self._attachment, self._unsettled):
            self.session.interrupt()
            self.complete(attachment)
            self.settled(attachment)
            self._over(_ABNORMAL, "the connection was interrupted")

    # ── time ──────────────────────────────────────────────────────────────────────────────────────────

    def check(self, now: float) -> float | None:
        """Heart-beats and the end of quiet responses while a request is open; the end of the session where none is."""
        due = self._due()
        if now < due:
            return due
        attachment = self._attachment
        if attachment is None:
            self._table.forget(self._id)
            self._over(_ABNORMAL, "the client asked for nothing any more")
            self.session.interrupt()
            self.resume_reading()
            return None
        self._since = now
        attachment.beat = True
        attachment.ended = self.session.unproven
        attachment.wake()
        return self._due()

    def _due(self) -> float:
        options = self._options
        if self._attachment is None:
            return self._since + options.disconnect_seconds
        return self._since + (options.prove_seconds if self.session.unproven else options.heartbeat_seconds)

    def _look_again(self) -> None:
        self._table.watch(self, self._due())

    # ── small things ──────────────────────────────────────────────────────────────────────────────────

    def _wake(self) -> None:
        if self._attachment is not None:
            self._attachment.wake()

    def _after_close(self) -> None:
        self.resume_reading()
        self._wake()
        if self._attachment is None:
            self._since = self._table.now

    def _proved(self, token: bytes) -> None:
        if self._receiver is not None:
            self._receiver.proved(token, alive=False)

    def _over(self, code: int, reason: str) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.lost(code, reason)


class Attachment:
    """The hold of one receiving request on a session."""

    __slots__ = ("_session", "_waiter", "beat", "cut", "ended", "gone", "settled")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._waiter: asyncio.Future[None] | None = None
        self.beat = False  # a heart-beat is due
        self.ended = False  # the response should end, so that the next request proves it
        self.gone = False  # the client has left
        self.settled = asyncio.Event()  # all was written
        self.cut: Callable[[], None] | None = None  # ends the response's connection, while it is written to

    def leave(self) -> None:
        """The client has left."""
        self.gone = True
        self.wake()

    def wake(self) -> None:
        """There is news."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self) -> None:
        """Return once there may be something to take, or the response should end."""
        if not (self._session.has_frame or self.beat or self.ended or self.gone):
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
            self._waiter = None
