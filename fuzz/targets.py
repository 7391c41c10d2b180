"""What is fuzzed: one function a reader of bytes. Each takes any bytes, and fails where a promise is broken."""

import contextlib
import json
from collections.abc import Callable
from typing import Final
from urllib.parse import urlencode

from postroom.destination import AppPath, Destinations, Pattern, Prefixes, Topic, UserQueue, user_destination
from postroom.envelope import Unreadable, unseal
from postroom.errors import HandshakeRefused, UnknownDestination
from postroom.identity import UserName
from postroom.sockjs import framing, paths, payload
from postroom.stomp import (
    Connection,
    Decoder,
    Event,
    Frame,
    Limits,
    Send,
    Version,
    Violation,
    encode_message,
    message_start,
)
from postroom.transport.base import Handshake
from postroom.transport.handshake import check_upgrade, choose_subprotocol, page_headers, parse_head
from postroom.transport.origin import origin_allowed
from postroom.transport.websocket import NOT_UTF8, PROTOCOL_ERROR, TEXT, Assembly, Fault, is_utf8, parse_close

_LIMITS: Final = Limits(max_headers=8, max_header_bytes=64, max_body_bytes=256)
_END: Final = b"\n\n" + bytes(_LIMITS.max_body_bytes + 1)
_VERSIONS: Final[tuple[Version, ...]] = ("1.0", "1.1", "1.2")


def stomp_frames(data: bytes) -> None:
    """However bytes are cut, the same frames come of them, and what a client sent can be sent on."""
    if len(data) < 2:
        return
    version, step, wire = _VERSIONS[data[0] % 3], data[1] + 1, data[2:]
    whole, cut = _connected(version), _connected(version)
    events = whole.receive(wire)
    pieces: list[Event] = []
    for at in range(0, len(wire), step):
        pieces += cut.receive(wire[at : at + step])
    # A line that is too long is seen sooner where it comes in pieces: at its frame's end by both.
    events += whole.receive(_END)
    pieces += cut.receive(_END)
    assert _without_words(events) == _without_words(pieces), (events, pieces)
    assert not any(isinstance(event, Violation) for event in events[:-1])
    for event in events:
        if isinstance(event, Send):
            _sent_on(event, version)
    if events and isinstance(events[-1], Violation):
        assert events[-1].summary
        assert whole.receive(b"SEND\ndestination:/a\n\n\0") == []


def _without_words(events: list[Event]) -> list[Event]:
    # Of what is wrong in more ways than one, the cut decides which is seen first.
    return [Violation("", event.receipt) if isinstance(event, Violation) else event for event in events]


def _connected(version: Version) -> Connection:
    made = Connection(limits=_LIMITS)
    made.receive(f"CONNECT\naccept-version:{version}\nhost:x\n\n\0".encode())
    return made


def _sent_on(event: Send, version: Version) -> None:
    start = message_start(version, "0", event.destination)
    wire = encode_message(version, start, "1-1", event.headers, event.body)
    decoder = Decoder(Limits())
    decoder.version = version
    (frame,) = decoder.feed(wire)
    assert isinstance(frame, Frame), (frame, wire)
    assert (frame.command, frame.body) == ("MESSAGE", event.body)
    if version == "1.2":
        for name, value in event.headers.items():
            if name not in ("subscription", "destination", "message-id"):
                assert frame.headers[name] == value


def stomp_without_nul(data: bytes) -> None:
    """Where missing NULs are added, whole messages still come out as they went in."""
    decoder = Decoder(_LIMITS, append_missing_nul=True)
    for found in decoder.feed(data):
        assert isinstance(found, Frame) or str(found)
    strict = Decoder(_LIMITS)
    frames = strict.feed(data)
    again = Decoder(_LIMITS, append_missing_nul=True).feed(data)
    assert [f for f in again if isinstance(f, Frame)][: len(frames)] == [f for f in frames if isinstance(f, Frame)]


def sockjs_payloads(data: bytes) -> None:
    """A body is messages, or one of the protocol's two sentences; what Python's own parser takes is taken alike."""
    for read in (payload.messages, payload.websocket_messages):
        found = _payload(read, data)
        with contextlib.suppress(ValueError, RecursionError):
            known = json.loads(data.decode())
            if isinstance(known, list) and known and all(isinstance(text, str) and _plain(text) for text in known):
                assert found == [text.encode() for text in known], (found, known)
    form = urlencode({"d": data.decode("latin-1")}).encode()
    assert _payload(lambda body: payload.form_messages(body, "application/x-www-form-urlencoded"), form) == _payload(
        payload.messages, data.decode("latin-1").encode()
    )
    _payload(lambda body: payload.form_messages(body, "text/plain"), data)
    _payload(lambda body: payload.form_messages(body, "application/x-www-form-urlencoded; x"), data)


def _payload(read: Callable[[bytes], list[bytes]], data: bytes) -> list[bytes] | None:
    try:
        found = read(data)
    except payload.BadPayload as error:
        assert str(error) in ("Payload expected.", "Broken JSON encoding.")
        return None
    for message in found:
        message.decode()
    return found


def _plain(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


def sockjs_frames(data: bytes) -> None:
    """What goes out is JSON that reads as it was meant, in pages and scripts too."""
    text = data.decode(errors="replace")
    half = len(data) // 2
    first, second = data[:half], data[half:]
    frame = framing.array_of(framing.element(first) + framing.element(second))
    assert json.loads(frame[1:]) == [framing.text_of(first), framing.text_of(second)]
    assert len(framing.text_of(data).encode()) == len(data)
    assert json.loads(framing.array(text)[1:]) == [text]
    assert json.loads(framing.close(3000, text)[1:]) == [3000, text]
    assert not any(char in frame.decode() for char in "\n\r\u2028\u2029")
    quoted = framing.quoted(frame)
    assert b"<" not in quoted
    assert json.loads(quoted) == frame.decode()


def paths_and_heads(data: bytes) -> None:
    """A request's head is read or refused; its path leads somewhere or nowhere."""
    head = parse_head(data)
    if head is None:
        return
    assert head.target.startswith("/")
    assert not any("\r" in value or "\n" in value for value in head.headers.values())
    _ = head.query, head.upgrades, choose_subprotocol(head.headers, ("v12.stomp", "v11.stomp"))
    with contextlib.suppress(HandshakeRefused):
        check_upgrade(head)
    headers = page_headers(head)
    handshake = Handshake(head.target, head.query, headers, "127.0.0.1", secure=False)
    assert origin_allowed(handshake, ("*",))
    if headers.get("origin") == "null":
        assert not origin_allowed(handshake, ())
    with contextlib.suppress(HandshakeRefused):
        found = paths.place(head.path)
        assert found is None or "/" not in found.session
        assert found is None or "." not in found.session


_DESTINATIONS: Final = Destinations(Prefixes(app=("/app", "/message")))


def destinations(data: bytes) -> None:
    """A destination is refused, or names one thing, whose text leads back to it; patterns agree with themselves."""
    left, _, right = data.decode(errors="replace").partition("\0")
    for text in (left, right):
        try:
            found = _DESTINATIONS.to_send(text)
        except UnknownDestination as error:
            assert str(error)
            continue
        match found:
            case UserQueue(user, name):
                assert name.startswith("/")
                again = user_destination(user, name)
                if len(again) <= 255:
                    assert _DESTINATIONS.to_send(again) == found
            case Topic(name) | AppPath(name):
                assert name.startswith("/")
                assert "//" not in name
        with contextlib.suppress(UnknownDestination):
            mine = _DESTINATIONS.to_subscribe(text, UserName("me"))
            assert not isinstance(mine, UserQueue) or mine.user == "me"
    _patterns(left[:60], right[:60])


def _patterns(left: str, right: str) -> None:
    one, other = Pattern(left), Pattern(right)
    assert one.overlaps(other) == other.overlaps(one)
    if one.matches(right) and other.literal:
        assert one.overlaps(other)
    variables = one.variables(right)
    assert (variables is not None) == one.matches(right)


def websocket_messages(data: bytes) -> None:
    """However a message is fragmented, it is whole or refused for the same reason."""
    if not data:
        return
    step, body = data[0] % 7 + 1, data[1:]
    with contextlib.suppress(Fault):
        code, reason = parse_close(body)
        assert code == 1005 or 1000 <= code <= 4999
        assert len(reason.encode()) <= max(0, len(body) - 2)
    assembly = Assembly(TEXT, 200)
    pieces = [body[at : at + step] for at in range(0, len(body), step)] or [b""]
    try:
        for at, piece in enumerate(pieces):
            assembly.add(piece, final=at == len(pieces) - 1)
    except Fault as fault:
        assert fault.code in (NOT_UTF8, PROTOCOL_ERROR, 1009)
        assert fault.code == 1009 or not is_utf8(body)
    else:
        assert is_utf8(body)
        assert assembly.whole() == body


def envelopes(data: bytes) -> None:
    """What another node publishes is read, or refused as a whole."""
    with contextlib.suppress(Unreadable):
        unseal(data)


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    function.__name__: function
    for function in (
        stomp_frames,
        stomp_without_nul,
        sockjs_payloads,
        sockjs_frames,
        paths_and_heads,
        destinations,
        websocket_messages,
        envelopes,
    )
}
"""By name."""

TOKENS: Final[dict[str, tuple[bytes, ...]]] = {
    "stomp": (
        b"SEND", b"SUBSCRIBE", b"ACK", b"NACK", b"BEGIN", b"COMMIT", b"ABORT", b"DISCONNECT", b"CONNECT", b"STOMP",
        b"\n", b"\r\n", b"\n\n", b"\0", b":", b"\\c", b"\\n", b"\\r", b"\\\\", b"\\", b"destination:/a\n", b"id:0\n",
        b"transaction:t\n", b"content-length:", b"content-length:3\n\nabc\0", b"receipt:r\n", b"ack:client\n", b"1",
        "é世🚀".encode(), b"\xff",
    ),
    "sockjs": (
        b"[", b"]", b'"', b",", b'["x"]', b"\\u", b"\\ud83d", b"\\ude00", b"\\n", b"{", b"}", b"d=", b"%5B%22x%22%5D",
        b"null", b"1e9", "\u2028\u2029\ufeff".encode(), b"</script>", "é世🚀".encode(), b"\xff", b"\0",
    ),
    "paths": (
        b"GET ", b"/", b"/chat-websocket", b"/000/abc/xhr", b"/info", b"/iframe-x.html", b"?", b"%2f", b"%00", b"%ff",
        b" HTTP/1.1", b"\r\n", b"Host: x\r\n", b"Upgrade: websocket\r\n", b"Connection: Upgrade\r\n", b".",
        b"Origin: null\r\n",
        b"Sec-WebSocket-Version: 13\r\n", b"Sec-WebSocket-Key: MDAwMDAwMDAwMDAwMDAwMA==\r\n", b":",
    ),
    "destinations": (
        b"/topic/", b"/queue/", b"/user/", b"/app/", b"/message/", b"a", b"/", b"*", b"**", b"?", b"{x}", b"%2F",
        b"%00", b"%", b"\0", "é世🚀".encode(), "e\u0301".encode(), b".", b"..", b"\n",
    ),
    "websocket": (b"\x03\xe8", b"\x03\xed", b"\x0b\xb8", "é世🚀".encode(), b"\xff", b"\x00", b"abc"),
    "envelopes": (b"\x80", b"\x90", b"\xc4\x03abc", b"\xa3abc", b"\xcf", b"\x01", b"\xff", b"\xc0"),
}  # fmt: skip
"""Of what the bytes of a target are often made; the first part of its name, or the whole."""


def tokens_of(name: str) -> tuple[bytes, ...]:
    """The tokens of a target."""
    return TOKENS.get(name) or TOKENS[name.partition("_")[0]]
