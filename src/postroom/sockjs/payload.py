"""What a sending request carries (SockJS protocol 0.3.3, "XhrPolling", "JsonpPolling")."""

import json
from typing import Final
from urllib.parse import parse_qs

import msgspec

_FORM: Final = "application/x-www-form-urlencoded"
_decode = msgspec.json.Decoder(list[str]).decode
_decode_one = msgspec.json.Decoder(list[str] | str).decode


class BadPayload(Exception):
    """The body is not what it must be. `str()` is the sentence of the protocol, for status 500."""


def messages(body: bytes) -> list[bytes]:
    """The messages of an `xhr_send` body: a JSON array of strings. Raises BadPayload."""
    if not body:
        raise BadPayload("Payload expected.")
    try:
        return [text.encode() for text in _decode(body)]
    except msgspec.ValidationError:
        raise BadPayload("Payload expected.") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _leniently(body)


def form_messages(body: bytes, content_type: str) -> list[bytes]:
    """The messages of a `jsonp_send` body: the field `d` of a form, or JSON as it is. Raises BadPayload."""
    if content_type.partition(";")[0].strip().lower() != _FORM:
        return messages(body)
    try:
        fields = parse_qs(body.decode(), max_num_fields=100)
    except ValueError:
        raise BadPayload("Payload expected.") from None
    return messages(fields.get("d", [""])[0].encode())


def websocket_messages(body: bytes) -> list[bytes]:
    """The messages of a WebSocket frame: a JSON array of strings, or one string. Raises BadPayload."""
    try:
        found = _decode_one(body)
    except msgspec.ValidationError:
        raise BadPayload("Payload expected.") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        if not body.lstrip().startswith(b"["):
            raise BadPayload("Broken JSON encoding.") from None
        return _leniently(body)
    return [found.encode()] if isinstance(found, str) else [text.encode() for text in found]


def _leniently(body: bytes) -> list[bytes]:
    """Browsers may send halves of surrogate pairs, escaped: each becomes a replacement character."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise BadPayload("Broken JSON encoding.") from None
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise BadPayload("Payload expected.")
    return [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode() for text in found]
