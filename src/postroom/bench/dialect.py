"""What the generator says and hears: STOMP, and Socket.IO for comparison.

A dialect turns wishes into the text of one WebSocket message, and a control message into a `Heard`.
Deliveries are recognised by their first bytes alone; the body lies `tail_bytes` before the end. So are most
receipts: the token is what lies between `receipt` and `receipt_end`. Where more stands before it, `hear` tells.
"""

import enum
from typing import NamedTuple, Protocol


class Kind(enum.Enum):
    """What a control message means to the generator."""

    OPENED = enum.auto()  # the server may now be greeted
    READY = enum.auto()
    RECEIPT = enum.auto()
    FAILED = enum.auto()
    PROBE = enum.auto()  # to be answered at once with `Heard.text`
    IGNORED = enum.auto()


class Heard(NamedTuple):
    """A control message: its kind, and the receipt's token, the error's text or the answer to give."""

    kind: Kind
    text: bytes = b""


class Dialect(Protocol):
    """The texts of one protocol. Stateless; shared by all connections."""

    name: str
    greets_first: bool
    delivery: bytes
    receipt: bytes
    receipt_end: bytes
    tail_bytes: int
    subprotocol: str

    def hello(self, login: str, host: str) -> bytes:
        """Give the text that opens a session."""
        ...

    def subscribe(self, number: int, destination: str) -> bytes:
        """Give a subscription whose receipt comes under the token `s{number}` (Socket.IO: the number)."""
        ...

    def send(self, destination: str, body_bytes: int, *, receipt: bool) -> tuple[bytes, bytes, bytes]:
        """Give what stands before the receipt's token, between token and body, and after the body.

        Without `receipt` the first part is empty and no token is to be put in.
        """
        ...

    def token(self, number: int) -> bytes:
        """Give the token under which the receipt of subscription `number` comes."""
        ...

    def hear(self, payload: bytes) -> Heard:
        """Understand a message that is no delivery."""
        ...


class Stomp:
    """STOMP 1.2 over WebSocket, one frame a message, as browsers' clients speak it."""

    name = "stomp"
    greets_first = True
    delivery = b"MESSAGE\n"
    receipt = b"RECEIPT\nreceipt-id:"
    receipt_end = b"\n"
    tail_bytes = 1
    subprotocol = "v12.stomp"

    def hello(self, login: str, host: str) -> bytes:
        """Give a CONNECT without heart-beats."""
        return f"CONNECT\naccept-version:1.2\nheart-beat:0,0\nhost:{host}\nlogin:{login}\n\n\0".encode()

    def subscribe(self, number: int, destination: str) -> bytes:
        """Give a SUBSCRIBE with `ack:auto`."""
        return (f"SUBSCRIBE\nid:sub-{number}\ndestination:{destination}\nack:auto\nreceipt:s{number}\n\n\0").encode()

    def send(self, destination: str, body_bytes: int, *, receipt: bool) -> tuple[bytes, bytes, bytes]:
        """Give the parts of a SEND with content-length."""
        head = f"SEND\ndestination:{destination}\ncontent-type:text/plain\ncontent-length:{body_bytes}\n"
        if receipt:
            return f"{head}receipt:".encode(), b"\n\n", b"\0"
        return b"", f"{head}\n".encode(), b"\0"

    def token(self, number: int) -> bytes:
        """Give the receipt-id of subscription `number`."""
        return b"s%d" % number

    def hear(self, payload: bytes) -> Heard:
        """Understand CONNECTED, RECEIPT, ERROR and heart-beats."""
        if payload.startswith(b"RECEIPT\n"):
            return Heard(Kind.RECEIPT, header(payload, b"receipt-id"))
        if payload.startswith(b"CONNECTED\n"):
            return Heard(Kind.READY)
        if payload.startswith(b"ERROR\n"):
            return Heard(Kind.FAILED, header(payload, b"message"))
        return Heard(Kind.IGNORED)


class SocketIO:
    """Socket.IO 5 over Engine.IO 4, WebSocket transport; the server joins rooms named by `sub`."""

    name = "socketio"
    greets_first = False
    delivery = b'42["m","'
    receipt = b"43"
    receipt_end = b"["
    tail_bytes = 2
    subprotocol = ""

    def hello(self, login: str, host: str) -> bytes:
        """Give the CONNECT packet of the main namespace."""
        return b'40{"login":"%s"}' % login.encode()

    def subscribe(self, number: int, destination: str) -> bytes:
        """Give an event that asks to join a room, with an acknowledgement."""
        return b'42%d["sub","%s"]' % (number, destination.encode())

    def send(self, destination: str, body_bytes: int, *, receipt: bool) -> tuple[bytes, bytes, bytes]:
        """Give the parts of an event that is emitted to the destination's room."""
        middle = b'["send","%s","' % destination.encode()
        return (b"42", middle, b'"]') if receipt else (b"", b"42" + middle, b'"]')

    def token(self, number: int) -> bytes:
        """Give the acknowledgement's id of subscription `number`."""
        return b"%d" % number

    def hear(self, payload: bytes) -> Heard:
        """Understand open, connect, error and ping."""
        if payload == b"2":
            return Heard(Kind.PROBE, b"3")
        if payload.startswith(b"40"):
            return Heard(Kind.READY)
        if payload.startswith((b"44", b"41", b"1")):
            return Heard(Kind.FAILED, payload[:200])
        return Heard(Kind.OPENED) if payload.startswith(b"0") else Heard(Kind.IGNORED)


def header(frame: bytes, name: bytes) -> bytes:
    r"""Give the first header `name` of a STOMP frame, unescaped only of ``\c``; empty if there is none."""
    head = frame[: frame.find(b"\n\n") + 1]
    start = head.find(b"\n" + name + b":")
    if start < 0:
        return b""
    start += len(name) + 2
    return head[start : head.find(b"\n", start)].rstrip(b"\r").replace(b"\\c", b":")


DIALECTS: dict[str, Dialect] = {"stomp": Stomp(), "socketio": SocketIO()}
