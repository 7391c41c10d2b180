"""The server's side of one STOMP connection: bytes in, events out; no I/O, no clock."""

from collections.abc import Callable, Iterable
from enum import Enum
from typing import ClassVar, Final

from postroom.errors import LimitExceeded, MalformedFrame, ProtocolViolation, UnexpectedFrame
from postroom.stomp.codec import Decoder, Limits, encode_frame
from postroom.stomp.events import (
    Ack,
    AckMode,
    Commit,
    Connect,
    Disconnect,
    Done,
    Event,
    Nack,
    Send,
    Subscribe,
    Unsubscribe,
    Violation,
)
from postroom.stomp.frame import Frame, Version, escape
from postroom.stomp.negotiation import VERSIONS, choose_version, heart_beat

_MAX_TRANSACTION_FRAMES: Final = 1000
_MAX_TRANSACTION_BODIES: Final = 16
_ACK_MODES: Final[dict[str, AckMode]] = {
    "auto": "auto",
    "client": "client",
    "client-individual": "client-individual",
}


class State(Enum):
    """Where a connection stands."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    CLOSED = "closed"


class _Transaction:
    """What was sent into one transaction, and its size: of headers too, which may be more than the bodies."""

    __slots__ = ("events", "size")

    def __init__(self) -> None:
        self.events: list[Send | Ack | Nack] = []
        self.size = 0


class Connection:
    """What a client may say when, and what the server answers in frames.

    `receive` gives the events of what it is fed; a `Violation` is the last one, and the connection is closed
    then: it ignores all further bytes. CONNECT moves it on at once, so that frames sent behind it are served.
    `heart_beat` is what the server can send and wants to get, in ms; after CONNECT what was agreed on.
    """

    __slots__ = (
        "_decoder",
        "_limits",
        "_max_transactions",
        "_server",
        "_state",
        "_subscriptions",
        "_transactions",
        "heart_beat",
        "version",
    )

    def __init__(
        self,
        *,
        limits: Limits,
        heart_beat: tuple[int, int] = (10_000, 10_000),
        server: str = "postroom",
        max_transactions: int = 10,
        append_missing_nul: bool = False,
    ) -> None:
        self._decoder = Decoder(limits, append_missing_nul=append_missing_nul)
        self._limits = limits
        self._server = server
        self._max_transactions = max_transactions
        self._state = State.CONNECTING
        self._subscriptions: set[str] = set()
        self._transactions: dict[str, _Transaction] | None = None
        self.heart_beat = heart_beat
        self.version: Version = "1.2"

    @property
    def state(self) -> State:
        """Where it stands."""
        return self._state

    def receive(self, data: bytes) -> list[Event]:
        """What `data` asks for, in order. Never blocks, never raises."""
        if self._state is State.CLOSED:
            return []
        whole = self._decoder.whole(data)
        if whole is not None and self._state is State.CONNECTED and whole.command == "SEND":
            headers = whole.headers
            if headers.get("destination") and "transaction" not in headers:
                # The frame that there are most of, without a detour.
                headers.pop("content-length", None)
                return [Send(headers.pop("destination"), headers, whole.body, headers.pop("receipt", None))]
        return self._receive(self._decoder.frames(data) if whole is None else [whole])

    def _receive(self, frames: Iterable[Frame | ProtocolViolation]) -> list[Event]:
        events: list[Event] = []
        for frame in frames:
            if not isinstance(frame, Frame):
                events.append(self._violation(frame, None))
                break
            try:
                event = self._step(frame)
            except ProtocolViolation as violation:
                events.append(self._violation(violation, frame))
                break
            if event is not None:
                events.append(event)
                if self._over():
                    break
        return events

    def _over(self) -> bool:
        return self._state is State.CLOSED

    def forget(self, id: str) -> None:
        """The subscription `id` was refused: the client may use the name again."""
        self._subscriptions.discard(id)

    # ── what the server says ──────────────────────────────────────────────────────────────────────────

    def connected(self, session: str, user: str) -> bytes:
        """CONNECTED, with what was agreed on."""
        headers = {"version": self.version, "session": session, "server": self._server, "user-name": user}
        if self.version != "1.0":
            # The server's half of the bargain, in its own words: what it will send, what it expects.
            headers["heart-beat"] = f"{self.heart_beat[0]},{self.heart_beat[1]}"
        return encode_frame(self.version, "CONNECTED", headers)

    def receipt(self, receipt: str) -> bytes:
        """RECEIPT."""
        return f"RECEIPT\nreceipt-id:{escape(receipt, self.version)}\n\n\0".encode()

    def error(
        self,
        summary: str,
        receipt: str | None = None,
        detail: str = "",
        headers: dict[str, str] | None = None,
    ) -> bytes:
        """ERROR; the connection is to be closed behind it. The body is `detail`, or `summary` again."""
        all_headers = {"message": summary, "content-type": "text/plain"}
        if receipt is not None:
            all_headers["receipt-id"] = receipt
        if headers:
            all_headers.update(headers)
        return encode_frame(self.version, "ERROR", all_headers, (detail or summary).encode())

    # ── one frame ─────────────────────────────────────────────────────────────────────────────────────

    def _violation(self, violation: ProtocolViolation, frame: Frame | None) -> Violation:
        connecting = self._state is State.CONNECTING
        self._state = State.CLOSED
        receipt = frame.headers.get("receipt") if frame is not None else None
        headers = {"version": ",".join(reversed(VERSIONS))} if connecting else None
        return Violation(str(violation), receipt, headers=headers)

    def _step(self, frame: Frame) -> Event | None:
        step = self._STEPS[self._state].get(frame.command)
        if step is None:
            raise self._unexpected(frame.command)
        if frame.body and frame.command != "SEND":
            raise MalformedFrame(f"a {frame.command} frame has no body")
        return step(self, frame)

    def _unexpected(self, command: str) -> ProtocolViolation:
        known = self._STEPS[State.CONNECTED].keys() | self._STEPS[State.CONNECTING].keys()
        if command not in known:
            return MalformedFrame(f"{command[:32]!r} is no command of a STOMP client")
        if self._state is State.CONNECTING:
            return UnexpectedFrame(f"the first frame must be CONNECT or STOMP, not {command}")
        return UnexpectedFrame("this connection is connected already")

    def _connect(self, frame: Frame) -> Event:
        headers = frame.headers
        version = choose_version(headers.get("accept-version"))
        if version is None:
            raise UnexpectedFrame(f"no common STOMP version: the server speaks {', '.join(reversed(VERSIONS))}")
        self.heart_beat = heart_beat(headers.get("heart-beat"), self.heart_beat, version)
        self.version = self._decoder.version = version
        self._state = State.CONNECTED
        if version == "1.0":  # whose own examples have blanks around names and values
            headers = {name.strip(): value.strip() for name, value in headers.items()}
        return Connect(headers.get("host"), headers.get("login"), headers.get("passcode"), headers)

    def _send(self, frame: Frame) -> Event | None:
        headers = frame.headers
        destination = headers.pop("destination", None)
        if not destination:
            raise MalformedFrame("SEND needs a destination")
        receipt = headers.pop("receipt", None)
        headers.pop("content-length", None)
        transaction = headers.pop("transaction", None)
        event = Send(destination, headers, frame.body, receipt)
        return event if transaction is None else self._collect(transaction, event, receipt)

    def _subscribe(self, frame: Frame) -> Event:
        headers = frame.headers
        destination = headers.get("destination")
        if not destination:
            raise MalformedFrame("SUBSCRIBE needs a destination")
        id = headers.get("id")
        if id is None and self.version != "1.0":
            raise MalformedFrame("SUBSCRIBE needs an id")
        mode = _ACK_MODES.get(headers.get("ack", "auto"))
        if mode is None or (mode == "client-individual" and self.version == "1.0"):
            raise MalformedFrame(f"SUBSCRIBE has no ack mode {headers.get('ack')!r}")
        name = destination if id is None else id
        if name in self._subscriptions:
            raise UnexpectedFrame(f"there is a subscription with the id {name!r} already")
        self._subscriptions.add(name)
        return Subscribe(name, destination, mode, headers, headers.get("receipt"), id is None)

    def _unsubscribe(self, frame: Frame) -> Event:
        headers = frame.headers
        name = headers.get("id")
        if name is None and self.version == "1.0":
            name = headers.get("destination")
        if name is None:
            raise MalformedFrame("UNSUBSCRIBE needs an id")
        self._subscriptions.discard(name)
        return Unsubscribe(name, headers.get("receipt"))

    def _ack(self, frame: Frame) -> Event | None:
        return self._acknowledge(Ack, frame)

    def _nack(self, frame: Frame) -> Event | None:
        if self.version == "1.0":
            raise UnexpectedFrame("STOMP 1.0 has no NACK")
        return self._acknowledge(Nack, frame)

    def _acknowledge(self, kind: type[Ack] | type[Nack], frame: Frame) -> Event | None:
        headers, name = frame.headers, frame.command
        id, message_id, subscription = (headers.get(key) for key in ("id", "message-id", "subscription"))
        if self.version == "1.2":
            if id is None:
                raise MalformedFrame(f"{name} needs an id, the ack header of the message")
        elif message_id is None:
            raise MalformedFrame(f"{name} needs a message-id")
        elif subscription is None and self.version == "1.1":
            raise MalformedFrame(f"{name} needs a subscription")
        receipt, transaction = headers.get("receipt"), headers.get("transaction")
        event = kind(id if self.version == "1.2" else None, subscription, message_id, receipt)
        return event if transaction is None else self._collect(transaction, event, receipt)

    def _disconnect(self, frame: Frame) -> Event:
        self._state = State.CLOSED
        return Disconnect(frame.headers.get("receipt"))

    # ── transactions ──────────────────────────────────────────────────────────────────────────────────

    def _collect(self, transaction: str, event: Send | Ack | Nack, receipt: str | None) -> Event | None:
        held = self._open(transaction)
        if len(held.events) >= _MAX_TRANSACTION_FRAMES:
            raise LimitExceeded(f"a transaction has at most {_MAX_TRANSACTION_FRAMES} frames")
        bound = _MAX_TRANSACTION_BODIES * self._limits.max_body_bytes
        held.size += _size(event)
        if held.size > bound:
            raise LimitExceeded(f"a transaction holds at most {bound} bytes")
        if isinstance(event, Send):
            event = Send(event.destination, event.headers, event.body)
        else:
            event = type(event)(event.id, event.subscription, event.message_id)
        held.events.append(event)
        return _done(receipt)

    def _begin(self, frame: Frame) -> Event | None:
        name = self._transaction(frame)
        if self._transactions is None:
            self._transactions = {}
        if name in self._transactions:
            raise UnexpectedFrame(f"there is a transaction {name!r} already")
        if len(self._transactions) >= self._max_transactions:
            raise LimitExceeded(f"a session has at most {self._max_transactions} open transactions")
        self._transactions[name] = _Transaction()
        return _done(frame.headers.get("receipt"))

    def _commit(self, frame: Frame) -> Event:
        name = self._transaction(frame)
        events = tuple(self._open(name).events)
        self._close(name)
        return Commit(events, frame.headers.get("receipt"))

    def _abort(self, frame: Frame) -> Event | None:
        name = self._transaction(frame)
        self._open(name)
        self._close(name)
        return _done(frame.headers.get("receipt"))

    def _transaction(self, frame: Frame) -> str:
        name = frame.headers.get("transaction")
        if not name:
            raise MalformedFrame(f"{frame.command} needs a transaction")
        return name

    def _open(self, name: str) -> _Transaction:
        if self._transactions is None or name not in self._transactions:
            raise UnexpectedFrame(f"there is no open transaction {name!r}")
        return self._transactions[name]

    def _close(self, name: str) -> None:
        if self._transactions is not None:
            del self._transactions[name]

    _STEPS: ClassVar[dict[State, dict[str, Callable[["Connection", Frame], Event | None]]]] = {
        State.CONNECTING: {"CONNECT": _connect, "STOMP": _connect},
        State.CONNECTED: {
            "SEND": _send,
            "SUBSCRIBE": _subscribe,
            "UNSUBSCRIBE": _unsubscribe,
            "ACK": _ack,
            "NACK": _nack,
            "BEGIN": _begin,
            "COMMIT": _commit,
            "ABORT": _abort,
            "DISCONNECT": _disconnect,
        },
        State.CLOSED: {},
    }


def _done(receipt: str | None) -> Done | None:
    return Done(receipt) if receipt is not None else None


def _size(event: Send | Ack | Nack) -> int:
    """What `event` holds, in characters and bytes."""
    if isinstance(event, Send):
        headers = sum(len(name) + len(value) for name, value in event.headers.items())
        return len(event.destination) + headers + len(event.body)
    return sum(len(part) for part in (event.id, event.subscription, event.message_id) if part is not None)
