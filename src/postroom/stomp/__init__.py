"""STOMP 1.0, 1.1 and 1.2 without I/O: a codec, and the server's side of a connection.

Usable alone: it imports nothing of Postroom but its errors.
"""

from postroom.stomp.codec import Decoder, Limits, encode_frame, encode_message, message_start
from postroom.stomp.connection import Connection, State
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
from postroom.stomp.frame import Frame, Version, escape, unescape
from postroom.stomp.negotiation import SUBPROTOCOLS, VERSIONS

__all__ = [
    "SUBPROTOCOLS",
    "VERSIONS",
    "Ack",
    "AckMode",
    "Commit",
    "Connect",
    "Connection",
    "Decoder",
    "Disconnect",
    "Done",
    "Event",
    "Frame",
    "Limits",
    "Nack",
    "Send",
    "State",
    "Subscribe",
    "Unsubscribe",
    "Version",
    "Violation",
    "encode_frame",
    "encode_message",
    "escape",
    "message_start",
    "unescape",
]
