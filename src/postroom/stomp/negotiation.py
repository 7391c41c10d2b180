"""Versions, heart-beats and sub-protocol names."""

from typing import Final

from postroom.errors import MalformedFrame
from postroom.stomp.frame import Version

VERSIONS: Final[tuple[Version, ...]] = ("1.2", "1.1", "1.0")
SUBPROTOCOLS: Final = ("v12.stomp", "v11.stomp", "v10.stomp")
_MAX_HEART_BEAT: Final = 10**9


def choose_version(accepted: str | None) -> Version | None:
    """The highest version of both sides; no `accept-version` means 1.0 (STOMP 1.2, "Protocol Negotiation")."""
    if accepted is None:
        return "1.0"
    offered = {text.strip() for text in accepted.split(",")}
    return next((version for version in VERSIONS if version in offered), None)


def heart_beat(text: str | None, server: tuple[int, int], version: Version) -> tuple[int, int]:
    """What is agreed: the server's interval, the client's, in ms; 0 is none (STOMP 1.2, "Heart-beating").

    Raises MalformedFrame where the header is not two numbers.
    """
    if text is None or version == "1.0":
        return 0, 0
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise MalformedFrame(f"heart-beat must be two numbers of milliseconds, such as 10000,10000: {text[:40]!r}")
    can, wants = map(int, parts)
    outgoing = max(server[0], wants) if server[0] and wants else 0
    incoming = max(server[1], can) if server[1] and can else 0
    return outgoing, incoming
