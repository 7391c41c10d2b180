"""The rules of RFC 6455 that picows leaves to its user: framing, joining fragments, closing. No I/O."""

import codecs
from typing import Final

TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

NORMAL: Final = 1000
PROTOCOL_ERROR: Final = 1002
NO_CODE: Final = 1005
ABNORMAL: Final = 1006
NOT_UTF8: Final = 1007
TOO_BIG: Final = 1009
INTERNAL_ERROR: Final = 1011

_MAX_REASON: Final = 123
_utf8_decoder = codecs.getincrementaldecoder("utf-8")


class Fault(Exception):
    """The peer broke a rule; the connection fails with the close code `code` (RFC 6455, section 7.1.7)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def frame(opcode: int, payload: bytes) -> bytes:
    """One final, unmasked frame (RFC 6455, section 5.2)."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 65_536:
        return bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big") + payload
    return bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big") + payload


_SMALL_TEXT: Final = tuple(bytes((0x80 | TEXT, size)) for size in range(126))
_MIDDLE_TEXT: Final = bytes((0x80 | TEXT, 126))


def message(payload: bytes) -> bytes:
    """`payload` in a text frame if it is UTF-8, in a binary one if not."""
    size = len(payload)
    if size < 65_536 and payload.isascii():
        if size < 126:
            return _SMALL_TEXT[size] + payload
        return _MIDDLE_TEXT + size.to_bytes(2, "big") + payload
    return frame(TEXT if is_utf8(payload) else BINARY, payload)


def text_message(payload: bytes) -> bytes:
    """`payload`, known to be UTF-8, in a text frame."""
    return frame(TEXT, payload)


def close_frame(code: int, reason: str = "") -> bytes:
    """A CLOSE frame; the reason is cut to 123 bytes at a character, a reserved code becomes an empty payload."""
    if code in (NO_CODE, ABNORMAL, 1015):
        return frame(CLOSE, b"")
    text = reason.encode()[:_MAX_REASON].decode(errors="ignore").encode()
    return frame(CLOSE, code.to_bytes(2, "big") + text)


def is_utf8(payload: bytes) -> bool:
    """Whether `payload` is valid UTF-8."""
    if payload.isascii():
        return True
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


def parse_close(payload: bytes) -> tuple[int, str]:
    """Code and reason of a CLOSE frame's payload (RFC 6455, sections 5.5.1 and 7.4). Raises Fault."""
    if not payload:
        return NO_CODE, ""
    if len(payload) == 1:
        raise Fault(PROTOCOL_ERROR, "a close frame has no payload of one byte")
    code = int.from_bytes(payload[:2], "big")
    if not ((1000 <= code <= 1014 and code not in (1004, 1005, 1006)) or 3000 <= code <= 4999):
        raise Fault(PROTOCOL_ERROR, f"{code} is no close code to be sent")
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise Fault(NOT_UTF8, "the close reason is not UTF-8") from None


class Assembly:
    """Joins the fragments of one message, bounded as a whole; text is checked fragment by fragment
    (RFC 6455, sections 5.4 and 8.1), unless it is compressed."""

    __slots__ = ("_decoder", "_joined", "_max_bytes", "compressed", "text")

    def __init__(self, opcode: int, max_bytes: int, *, compressed: bool = False) -> None:
        self.text = opcode == TEXT
        self.compressed = compressed
        self._decoder = _utf8_decoder() if self.text and not compressed else None
        self._max_bytes = max_bytes
        self._joined = bytearray()

    def add(self, payload: bytes, *, final: bool) -> None:
        """Take the next fragment. Raises Fault."""
        if len(self._joined) + len(payload) > self._max_bytes:
            raise Fault(TOO_BIG, f"a message has at most {self._max_bytes} bytes")
        if self._decoder is not None:
            try:
                self._decoder.decode(payload, final)
            except UnicodeDecodeError:
                raise Fault(NOT_UTF8, "a text message is not UTF-8") from None
        self._joined += payload

    def whole(self) -> bytes:
        """The message."""
        return bytes(self._joined)
