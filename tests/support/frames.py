"""STOMP frames as the tests read and write them: on purpose not the code under test."""

import re
from collections.abc import Mapping
from typing import NamedTuple

_ESCAPE = {"\\": "\\\\", "\n": "\\n", ":": "\\c", "\r": "\\r"}
_UNESCAPE = {sequence: char for char, sequence in _ESCAPE.items()}
_SEQUENCE = re.compile(r"\\.")


class Frame(NamedTuple):
    """A frame, headers unescaped."""

    command: str
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


def encode(command: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """A frame of STOMP 1.2."""
    plain = command in ("CONNECT", "STOMP")
    lines = [command]
    for name, value in headers.items():
        lines.append(f"{name}:{value}" if plain else f"{_escaped(name)}:{_escaped(value)}")
    if body:
        lines.append(f"content-length:{len(body)}")
    return "\n".join(lines).encode() + b"\n\n" + body + b"\0"


def decode(data: bytes) -> list[Frame]:
    """The frames in one WebSocket message; heart-beats are dropped."""
    found: list[Frame] = []
    while data := data.lstrip(b"\r\n"):
        head, _, rest = data.partition(b"\n\n")
        command, *lines = head.decode().split("\n")
        plain = command in ("CONNECTED",)
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers.setdefault(name if plain else _unescaped(name), value if plain else _unescaped(value))
        size = int(headers["content-length"]) if "content-length" in headers else rest.index(b"\0")
        assert rest[size : size + 1] == b"\0", f"the frame does not end with NUL: {data!r}"
        found.append(Frame(command, headers, rest[:size]))
        data = rest[size + 1 :]
    return found


def _escaped(text: str) -> str:
    return "".join(_ESCAPE.get(char, char) for char in text)


def _unescaped(text: str) -> str:
    return _SEQUENCE.sub(lambda match: _UNESCAPE[match[0]], text) if "\\" in text else text
