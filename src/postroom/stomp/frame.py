"""Frames, and the escaping of their headers, which differs in each version of STOMP."""

import re
from typing import Final, Literal

from msgspec import Struct

from postroom.errors import MalformedFrame

Version = Literal["1.0", "1.1", "1.2"]


class Frame(Struct, gc=False):
    """A frame as it stood on the wire, headers unescaped; of a repeated header the first (STOMP 1.2, "Repeated
    Header Entries")."""

    command: str
    headers: dict[str, str]
    body: bytes


UNESCAPED: Final = frozenset({"CONNECT", "CONNECTED"})
"""Commands whose headers are never escaped, to stay compatible with 1.0 (STOMP 1.2, "Value Encoding")."""

_ESCAPES: Final[dict[Version, dict[str, str]]] = {
    "1.0": {},
    "1.1": {"\\": "\\\\", "\n": "\\n", ":": "\\c"},
    "1.2": {"\\": "\\\\", "\n": "\\n", ":": "\\c", "\r": "\\r"},
}
_ESCAPED: Final = {version: {to: char for char, to in table.items()} for version, table in _ESCAPES.items()}
_TO_ESCAPE: Final = re.compile(r"[\\\n:\r]")
_SEQUENCE: Final = re.compile(r"\\.?", re.DOTALL)


def escape(text: str, version: Version) -> str:
    """`text` for a header on the wire. What a version cannot express (line ends in 1.0) becomes a space."""
    if _TO_ESCAPE.search(text) is None:
        return text
    table = _ESCAPES[version]
    if not table:
        return text.replace("\r", " ").replace("\n", " ")
    return _TO_ESCAPE.sub(lambda match: table.get(match[0], " "), text)


def unescape(text: str, version: Version) -> str:
    """Undo `escape`. Raises MalformedFrame for a sequence that the version does not define."""
    if version == "1.0" or "\\" not in text:
        return text
    table = _ESCAPED[version]

    def undo(match: re.Match[str]) -> str:
        try:
            return table[match[0]]
        except KeyError:
            raise MalformedFrame(f"STOMP {version} has no escape sequence {match[0]!r} in headers") from None

    return _SEQUENCE.sub(undo, text)
