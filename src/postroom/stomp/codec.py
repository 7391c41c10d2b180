"""Bytes to frames and back: incremental, bounded, and quick for the usual message that is one whole frame."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from msgspec import Struct

from postroom.errors import LimitExceeded, MalformedFrame, ProtocolViolation
from postroom.stomp.frame import UNESCAPED, Frame, Version, escape, unescape

_NUL: Final = b"\x00"
_MAX_COMMAND: Final = 32
_CR_LF: Final = b"\r\n"
_MAX_QUICK_HEAD: Final = 2048
_MAX_DIGITS: Final = 18
_RECEIPT: Final = b"\nreceipt:"
_PLAIN: Final = re.compile(rb"[ -\[\]-~]{0,256}").fullmatch
_EMPTY_LINE: Final = re.compile(rb"\n\r?\n")


_NO_HEAD: Final[tuple[bytes, bytes | None, str, dict[str, str], str | None]] = (b"\n", None, "", {}, None)
"""A head as it was, or what is before and behind its receipt; what it says; its content-length."""


class Limits(Struct, frozen=True):
    """What one frame may measure. A header line counts name, colon and value."""

    max_headers: int = 64
    max_header_bytes: int = 8192
    max_body_bytes: int = 262_144

    @property
    def max_head_bytes(self) -> int:
        """The command and all header lines."""
        return _MAX_COMMAND + self.max_headers * (self.max_header_bytes + 1)


class Decoder:
    """Takes bytes as they come, gives whole frames.

    Line ends may be LF or CR LF in every version. `append_missing_nul` lets the end of each `feed` complete a
    frame whose NUL is missing (some clients cut it off). After a violation nothing more is decoded.
    """

    __slots__ = (
        "_append_missing_nul",
        "_body",
        "_buffer",
        "_head",
        "_last",
        "_limits",
        "_max_quick_head",
        "_over",
        "_scanned",
        "heartbeats",
        "version",
    )

    def __init__(self, limits: Limits, *, append_missing_nul: bool = False) -> None:
        self._limits = limits
        self._append_missing_nul = append_missing_nul
        self._buffer = bytearray()
        self._scanned = 0  # how much of the buffer was searched in vain
        self._head: Frame | None = None  # decoded, its body still coming
        self._body: int | None = None  # its length, if announced
        self._over = False
        self._last = _NO_HEAD
        self._max_quick_head = min(_MAX_QUICK_HEAD, limits.max_header_bytes)
        self.version: Version = "1.2"
        self.heartbeats = 0

    def whole(self, data: bytes) -> Frame | None:
        """The one frame that `data` is, in the usual and quick case. None says nothing: `feed` must be asked."""
        if self._buffer or self._head is not None or self._over or not data:
            return None
        beat = data[-1]
        if beat:
            if beat != 10 or data[-2:-1] != _NUL:
                return None
            data = data[:-1]  # an EOL behind the frame, as clients may send
        head, gap, body = data.partition(b"\n\n")
        # Clients repeat themselves: the next head is often the same, but for its receipt.
        start, end, command, headers, length = self._last
        if end is None:
            same, receipt = head == start, b""
        else:
            before, _, rest = head.partition(_RECEIPT)
            receipt, _, behind = rest.partition(b"\n")
            same = before == start and behind == end and len(head) <= self._max_quick_head and bool(_PLAIN(receipt))
        if same:
            headers = headers.copy()
            if end is not None:
                headers["receipt"] = receipt.decode()
        else:
            found = self._quick_head(head) if gap else None
            if found is None:
                return None
            command, headers = found
            length = headers.get("content-length")
            if command == "SEND":
                self._last = (*_around_receipt(head), command, headers.copy(), length)
        size = len(body) - 1
        if size > self._limits.max_body_bytes:
            return None
        if body.find(_NUL) != size if length is None else length != str(size):
            return None
        if beat:
            self.heartbeats += 1
        return Frame(command, headers, body[:-1])

    def _quick_head(self, head: bytes) -> tuple[str, dict[str, str]] | None:
        limits = self._limits
        if len(head) > self._max_quick_head or head[:1] <= b"\r" or self.version == "1.0":
            return None
        try:
            text = head.decode()
            command, *lines = text.split("\n")
            headers: dict[str, str] = dict([line.split(":", 1) for line in lines])
        except ValueError:  # no UTF-8, or no colon
            return None
        if len(headers) != len(lines) or len(lines) > limits.max_headers:
            return None
        return None if "\\" in text or "\r" in text or "\0" in text else (command, headers)

    def feed(self, data: bytes) -> list[Frame | ProtocolViolation]:
        """The frames that `data` completes, in order. A violation is the last item."""
        return list(self.frames(data))

    def frames(self, data: bytes) -> Iterator[Frame | ProtocolViolation]:
        """As `feed`, but a frame is decoded when it is asked for: CONNECT decides the version of those behind it."""
        if self._over:
            return
        self._buffer += data
        try:
            while (frame := self._next()) is not None:
                yield frame
            if self._append_missing_nul and (frame := self._completed()) is not None:
                yield frame
        except ProtocolViolation as violation:
            self._over = True
            self._buffer.clear()
            yield violation

    def _next(self) -> Frame | None:
        if self._head is None and not self._read_head():
            return None
        return self._read_body()

    def _read_head(self) -> bool:
        buffer = self._buffer
        skip = 0
        while skip < len(buffer) and buffer[skip] in _CR_LF:
            self.heartbeats += buffer[skip] == 10
            skip += 1
        if skip:
            del buffer[:skip]
            self._scanned = 0
        end, width = self._end_of_head()
        if end < 0:
            self._check_head()
            self._scanned = max(0, len(buffer) - 3)
            return False
        head = bytes(buffer[:end])
        if len(head) > self._limits.max_head_bytes:
            raise LimitExceeded(f"the headers are over {self._limits.max_head_bytes} bytes")
        del buffer[: end + width]
        self._scanned = 0
        self._head = self._decode_head(head.replace(b"\r\n", b"\n") if b"\r" in head else head)
        self._body = self._announced(self._head)
        return True

    def _end_of_head(self) -> tuple[int, int]:
        buffer = self._buffer
        # One search for both line ends: two would each run past this frame, to the end of a long buffer.
        found = _EMPTY_LINE.search(buffer, self._scanned)
        if found is None:
            return -1, 0
        start, end = found.span()
        if start and buffer[start - 1] == 13:  # the CR before the line end belongs to it
            start -= 1
        return start, end - start

    def _check_head(self) -> None:
        buffer = self._buffer
        if len(buffer) > self._limits.max_head_bytes + 3:  # of the empty line, CR LF CR may be there
            raise LimitExceeded(f"the headers are over {self._limits.max_head_bytes} bytes")
        if len(buffer) > _MAX_COMMAND + 1 and buffer.find(b"\n", 0, _MAX_COMMAND + 2) < 0:
            raise MalformedFrame("this does not begin with a STOMP command")
        nul = buffer.find(_NUL, self._scanned)
        if nul >= 0:
            raise MalformedFrame("a frame ended within its headers: the empty line is missing")
        if len(buffer) - (buffer.rfind(b"\n") + 1) > self._limits.max_header_bytes + 1:
            raise LimitExceeded(f"a header is over {self._limits.max_header_bytes} bytes")

    def _decode_head(self, head: bytes) -> Frame:
        try:
            text = head.decode()
        except UnicodeDecodeError:
            raise MalformedFrame("the headers are not UTF-8") from None
        lines = text.split("\n")
        limits = self._limits
        if len(lines) > limits.max_headers + 1:
            raise LimitExceeded(f"a frame has at most {limits.max_headers} headers")
        command = lines[0]
        if len(command) > _MAX_COMMAND or not command.isascii() or "\x00" in command:
            raise MalformedFrame("this does not begin with a STOMP command")
        headers: dict[str, str] = {}
        if "\\" in text or self.version == "1.0" or len(head) > limits.max_header_bytes or "\x00" in text:
            self._decode_headers_slowly(command, lines, headers)
            return Frame(command, headers, b"")
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon:
                raise MalformedFrame(f"a header has no colon: {line[:80]!r}")
            if name not in headers:
                headers[name] = value
        return Frame(command, headers, b"")

    def _decode_headers_slowly(self, command: str, lines: list[str], headers: dict[str, str]) -> None:
        plain = command in UNESCAPED or command == "STOMP"
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon or "\x00" in line:
                raise MalformedFrame(f"a header has no colon or holds a NUL: {line[:80]!r}")
            if len(line.encode()) > self._limits.max_header_bytes:
                raise LimitExceeded(f"a header is over {self._limits.max_header_bytes} bytes")
            if self.version == "1.0":
                name, value = name.strip(), value.strip()
            elif not plain:
                name, value = unescape(name, self.version), unescape(value, self.version)
            headers.setdefault(name, value)

    def _announced(self, frame: Frame) -> int | None:
        text = frame.headers.get("content-length")
        if text is None:
            return None
        text = text.strip()
        if not (text.isascii() and text.isdigit()):
            raise MalformedFrame(f"content-length is no number: {text[:20]!r}")
        # int() refuses more than 4,300 digits; of those that count, the first few tell that a body is too large.
        size = int(text.lstrip("0")[:_MAX_DIGITS] or "0")
        self._check_body(size)
        return size

    def _check_body(self, size: int) -> None:
        if size > self._limits.max_body_bytes:
            raise LimitExceeded(f"a body has at most {self._limits.max_body_bytes} bytes")

    def _read_body(self) -> Frame | None:
        buffer, size = self._buffer, self._body
        if size is None:
            size = buffer.find(_NUL, self._scanned)
            if size < 0:
                self._scanned = len(buffer)
                self._check_body(len(buffer))
                return None
            self._check_body(size)
        elif len(buffer) <= size:
            return None
        elif buffer[size] != 0:
            raise MalformedFrame("the body is longer than its content-length: a NUL is missing behind it")
        return self._finish(size, size + 1)

    def _completed(self) -> Frame | None:
        """What lies there at the end of a message, if only its NUL is missing."""
        size = len(self._buffer)
        if self._head is not None and self._body in (None, size):
            return self._finish(size, size)
        return None

    def _finish(self, size: int, through: int) -> Frame:
        frame = self._head
        assert frame is not None
        frame.body = bytes(self._buffer[:size])
        del self._buffer[:through]
        self._head, self._body, self._scanned = None, None, 0
        return frame


def _around_receipt(head: bytes) -> tuple[bytes, bytes | None]:
    start, mark, rest = head.partition(_RECEIPT)
    return start, rest.partition(b"\n")[2] if mark else None


def encode_frame(version: Version, command: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """A whole frame, headers escaped as `version` says, content-length added where there is a body."""
    plain = command in UNESCAPED
    lines = [command]
    for name, value in headers.items():
        if plain:
            value = value.replace("\r", " ").replace("\n", " ")
            lines.append(f"{name}:{value}")
        else:
            lines.append(f"{escape(name, version)}:{escape(value, version)}")
    if body:
        lines.append(f"content-length:{len(body)}")
    return "\n".join(lines).encode() + b"\n\n" + body + _NUL


def message_start(version: Version, subscription: str, destination: str) -> str:
    """How each MESSAGE to a subscription begins. `subscription` is empty where the client named none (1.0)."""
    named = f"subscription:{escape(subscription, version)}\n" if subscription else ""
    return f"MESSAGE\n{named}destination:{escape(destination, version)}\nmessage-id:"


class _Lines:
    """Header lines of MESSAGE frames. Mostly they are those of the message before: its sender's next one."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: tuple[Mapping[str, str], Version, str] = ({}, "1.2", "")

    def of(self, headers: Mapping[str, str], version: Version) -> str:
        """The lines, escaped as `version` wants it, without a line feed at their end."""
        known, known_version, lines = self._last
        if headers == known and version == known_version:
            return lines
        lines = "\n".join([f"{name}:{value}" for name, value in headers.items()])
        if lines.count(":") != len(headers) or lines.count("\n") >= len(headers) or "\\" in lines or "\r" in lines:
            lines = "\n".join([f"{escape(name, version)}:{escape(value, version)}" for name, value in headers.items()])
        self._last = (dict(headers), version, lines)
        return lines


_last_lines: Final = _Lines()


def encode_message(
    version: Version,
    start: str,
    message_id: str,
    headers: Mapping[str, str],
    body: bytes,
    ack: str | None = None,
    more: str = "",
) -> bytes:
    """A MESSAGE frame that begins with `start`; `ack` is for STOMP 1.2. `message_id` holds nothing to escape.

    `more` are further header lines, each behind a line feed, with nothing to escape either.
    """
    lines = _last_lines.of(headers, version)
    if ack is not None and version == "1.2":
        message_id = f"{message_id}\nack:{escape(ack, version)}"
    if lines:
        return f"{start}{message_id}\n{lines}{more}\ncontent-length:{len(body)}\n\n".encode() + body + _NUL
    return f"{start}{message_id}{more}\ncontent-length:{len(body)}\n\n".encode() + body + _NUL
