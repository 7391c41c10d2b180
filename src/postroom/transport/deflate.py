"""permessage-deflate (RFC 7692) without context takeover: each message is compressed by itself. No I/O.

A message that stands by itself costs a connection no memory between messages, and is compressed once for all
connections of a fan-out.
"""

import re
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Final

from msgspec import Struct

from postroom.transport import websocket
from postroom.transport.websocket import Fault

RSV1: Final = 0x40
_TAIL: Final = b"\x00\x00\xff\xff"
_MOST_STREAMS: Final = 16
_SMALLEST_WINDOW: Final = 9  # zlib cannot write a raw stream with a window of 2**8
_LARGEST_WINDOW: Final = 15

_PARAMETER: Final = re.compile(r'\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)(?:\s*=\s*(?:"([^"\\]*)"|([^\s;,"]+)))?\s*')
_FLAGS: Final = frozenset({"server_no_context_takeover", "client_no_context_takeover"})
_WINDOWS: Final = frozenset({"server_max_window_bits", "client_max_window_bits"})
_BITS: Final = re.compile(r"[89]|1[0-5]")


class Compression(Struct, frozen=True):
    """How messages are compressed, and from which size on. `window_bits` (9 to 15) and `level` (1 to 9) are zlib's.

    With `min_bytes` 0 all are, also those that compression makes larger.
    """

    window_bits: int = 12
    level: int = 1
    min_bytes: int = 256


class Agreed(Struct, frozen=True):
    """What the handshake came to: the value of the answer's `Sec-WebSocket-Extensions`, and how to compress."""

    response: str
    compression: Compression


def negotiate(offers: str, compression: Compression) -> Agreed | None:
    """The first of the client's `offers` that can be met (RFC 7692, section 7.1); None: no compression."""
    for parameters in _offers(offers):
        found = _accept(parameters, compression)
        if found is not None:
            return found
    return None


def _offers(header: str) -> Iterator[dict[str, str | None]]:
    """The parameters of each well-formed offer of permessage-deflate (RFC 6455, section 9.1)."""
    for offer in _split(header, ","):
        name, *rest = _split(offer, ";")
        if name.strip().lower() != "permessage-deflate":
            continue
        parameters: dict[str, str | None] = {}
        for part in rest:
            match = _PARAMETER.fullmatch(part)
            if match is None or match[1] in parameters:
                break
            parameters[match[1]] = match[3] if match[2] is None else match[2]
        else:
            yield parameters


def _split(text: str, separator: str) -> list[str]:
    """`text` at each `separator` that stands in no quoted string."""
    return re.findall(rf'(?:"[^"]*"|[^"{separator}])+', text) or [""]


def _accept(parameters: dict[str, str | None], compression: Compression) -> Agreed | None:
    answer = ["permessage-deflate", "server_no_context_takeover", "client_no_context_takeover"]
    bits = compression.window_bits
    for name, value in parameters.items():
        if name in _FLAGS:
            if value is not None:
                return None
        elif name not in _WINDOWS or not (_BITS.fullmatch(value) if value else name == "client_max_window_bits"):
            return None
    if value := parameters.get("server_max_window_bits"):
        bits = min(bits, int(value))
        if bits < _SMALLEST_WINDOW:
            return None
        answer.append(f"server_max_window_bits={bits}")
    if "client_max_window_bits" in parameters:
        most = int(parameters["client_max_window_bits"] or _LARGEST_WINDOW)
        answer.append(f"client_max_window_bits={min(most, compression.window_bits)}")
    agreed = Compression(window_bits=bits, level=compression.level, min_bytes=compression.min_bytes)
    return Agreed("; ".join(answer), agreed)


@lru_cache(maxsize=64)
def framing(compression: Compression) -> Callable[[bytes], bytes]:
    """Wraps payloads as `websocket.message` does, compressed where that is worth it; one function for equal terms."""

    def wrap(payload: bytes) -> bytes:
        if len(payload) < compression.min_bytes:
            return websocket.message(payload)
        return frame(websocket.TEXT if websocket.is_utf8(payload) else websocket.BINARY, payload, compression)

    return wrap


def frame(opcode: int, payload: bytes, compression: Compression) -> bytes:
    """One final, unmasked frame; compressed if that makes it smaller, or if everything is to be."""
    if len(payload) >= compression.min_bytes:
        small = deflate(payload, compression)
        if len(small) < len(payload) or not compression.min_bytes:
            return websocket.frame(opcode | RSV1, small)
    return websocket.frame(opcode, payload)


def deflate(payload: bytes, compression: Compression) -> bytes:
    """`payload` compressed (RFC 7692, section 7.2.1)."""
    bits = compression.window_bits
    compressor = zlib.compressobj(compression.level, zlib.DEFLATED, -bits, min(9, bits - 6))
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[: -len(_TAIL)]


def inflate(payload: bytes, max_bytes: int) -> bytes:
    """The message in `payload` (RFC 7692, section 7.2.2). Raises Fault: it is none, or larger than `max_bytes`."""
    rest = payload + _TAIL
    found = b""
    try:
        # A client may end its stream, and begin another, within a message (section 7.2.3.4).
        for _ in range(_MOST_STREAMS):
            inflater = zlib.decompressobj(-_LARGEST_WINDOW)
            found += inflater.decompress(rest, max_bytes + 1 - len(found))
            if len(found) > max_bytes:
                raise Fault(websocket.TOO_BIG, f"a message has at most {max_bytes} bytes")
            rest = inflater.unused_data
            if not inflater.eof or not rest:
                return found
    except zlib.error:
        pass
    raise Fault(websocket.NOT_UTF8, "a compressed message cannot be read")
