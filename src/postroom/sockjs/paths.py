"""What stands at which path below a service's prefix (SockJS protocol 0.3.3, "Static URLs", "Session URLs")."""

import re
from enum import Enum
from typing import Final

from msgspec import Struct

_IFRAME: Final = re.compile(r"/iframe[0-9\-.a-z_]*\.html/?")
_SESSION: Final = re.compile(r"/[^/.]{1,256}/([^/.]{1,256})/([a-z_]+)/?")


class Kind(Enum):
    """What is asked for; each value names the path's last part, or the whole of it."""

    GREETING = "/"
    INFO = "/info"
    IFRAME = "/iframe"
    RAW_WEBSOCKET = "/websocket"
    WEBSOCKET = "websocket"
    XHR = "xhr"
    XHR_STREAMING = "xhr_streaming"
    XHR_SEND = "xhr_send"
    EVENTSOURCE = "eventsource"
    HTMLFILE = "htmlfile"
    JSONP = "jsonp"
    JSONP_SEND = "jsonp_send"


_BELOW_SESSION: Final = {kind.value: kind for kind in Kind if not kind.value.startswith("/")}

METHODS: Final = {
    Kind.GREETING: ("GET",),
    Kind.INFO: ("OPTIONS", "GET"),
    Kind.IFRAME: ("GET",),
    Kind.RAW_WEBSOCKET: ("GET",),
    Kind.WEBSOCKET: ("GET",),
    Kind.XHR: ("OPTIONS", "POST"),
    Kind.XHR_STREAMING: ("OPTIONS", "POST"),
    Kind.XHR_SEND: ("OPTIONS", "POST"),
    Kind.EVENTSOURCE: ("GET",),
    Kind.HTMLFILE: ("GET",),
    Kind.JSONP: ("GET",),
    Kind.JSONP_SEND: ("POST",),
}
"""The methods that each answers."""


class Place(Struct, frozen=True):
    """What a path names; `session` is empty where it names none."""

    kind: Kind
    session: str = ""


def place(below: str) -> Place | None:
    """What the percent-decoded path `below` the prefix names; None: nothing (404)."""
    if below in ("", "/"):
        return Place(Kind.GREETING)
    if below.removesuffix("/") == "/info":
        return Place(Kind.INFO)
    if below.removesuffix("/") == "/websocket":
        return Place(Kind.RAW_WEBSOCKET)
    if _IFRAME.fullmatch(below):
        return Place(Kind.IFRAME)
    found = _SESSION.fullmatch(below)
    kind = _BELOW_SESSION.get(found[2]) if found is not None else None
    return Place(kind, found[1]) if found is not None and kind is not None else None
