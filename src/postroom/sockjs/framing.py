"""SockJS frames: `o`, `h`, `a[...]`, `c[code,"reason"]` (SockJS protocol 0.3.3, "Protocol and framing")."""

import codecs
import re
from typing import Final

import msgspec

OPEN: Final = b"o"
HEARTBEAT: Final = b"h"

# Code points that JSON leaves alone and browsers break on; the set that sockjs-client itself escapes.
_UNSAFE: Final = re.compile(
    "[\x00-\x1f\ud800-\udfff\u200c-\u200f\u2028-\u202f\u2060-\u206f\ufff0-\uffff\u0300-\u0333\u033d-\u0346\u034a-\u034c"
    "\u0350-\u0352\u0357-\u0358\u035c-\u0362\u0374\u037e\u0387\u0591-\u05af\u05c4\u0610-\u0617\u0653-\u0654\u0657-\u065b"
    "\u065d-\u065e\u06df-\u06e2\u06eb-\u06ec\u0730\u0732-\u0733\u0735-\u0736\u073a\u073d\u073f-\u0741\u0743\u0745\u0747"
    "\u07eb-\u07f1\u0951\u0958-\u095f\u09dc-\u09dd\u09df\u0a33\u0a36\u0a59-\u0a5b\u0a5e\u0b5c-\u0b5d\u0e38-\u0e39\u0f43"
    "\u0f4d\u0f52\u0f57\u0f5c\u0f69\u0f72-\u0f76\u0f78\u0f80-\u0f83\u0f93\u0f9d\u0fa2\u0fa7\u0fac\u0fb9\u1939-\u193a"
    "\u1a17\u1b6b\u1cda-\u1cdb\u1dc0-\u1dcf\u1dfc\u1dfe\u1f71\u1f73\u1f75\u1f77\u1f79\u1f7b\u1f7d\u1fbb\u1fbe\u1fc9"
    "\u1fcb\u1fd3\u1fdb\u1fe3\u1feb\u1fee-\u1fef\u1ff9\u1ffb\u1ffd\u2000-\u2001\u20d0-\u20d1\u20d4-\u20d7\u20e7-\u20e9"
    "\u2126\u212a-\u212b\u2329-\u232a\u2adc\u302b-\u302c\uf900-\ufa0d\ufa10\ufa12\ufa15-\ufa1e\ufa20\ufa22\ufa25-\ufa26"
    "\ufa2a-\ufa2d\ufa30-\ufa6d\ufa70-\ufad9\ufb1d\ufb1f\ufb2a-\ufb36\ufb38-\ufb3c\ufb3e\ufb40-\ufb41\ufb43-\ufb44"
    "\ufb46-\ufb4e]"
)
_encode = msgspec.json.Encoder().encode


def _marks(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "?" * (error.end - error.start), error.end


codecs.register_error("postroom.marks", _marks)


def text_of(payload: bytes) -> str:
    """`payload` as text, which is all that SockJS carries: each byte that is not UTF-8 becomes a `?`.

    One for one, so that a length that the payload tells of itself (STOMP's `content-length`) stays true.
    """
    return payload.decode(errors="postroom.marks")


def array(*messages: str) -> bytes:
    """`a[...]`: messages."""
    return b"a" + _escaped(_encode(messages))


def element(payload: bytes) -> bytes:
    """One message as it stands in an array, a comma behind it: elements are joined by putting them together.

    What is not UTF-8 is replaced, see `text_of`.
    """
    return _escaped(_encode(text_of(payload))) + b","


def array_of(elements: bytes) -> bytes:
    """`a[...]`: the messages that `element` made."""
    return b"a[" + elements[:-1] + b"]"


def close(code: int, reason: str) -> bytes:
    """`c[...]`: the session is over."""
    return b"c" + _escaped(_encode([code, reason]))


def quoted(frame: bytes) -> bytes:
    """A frame as a string of JavaScript; inside a page it cannot end the script that it stands in."""
    return _encode(frame.decode()).replace(b"<", b"\\u003c")


def _escaped(encoded: bytes) -> bytes:
    if encoded.isascii():
        return encoded
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", encoded.decode()).encode()
