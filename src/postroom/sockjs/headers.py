"""The headers of SockJS's answers: who may read them, how long they keep, and the balancer's cookie."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import structs

from postroom.transport.base import Handshake
from postroom.transport.origin import origin_allowed

Headers = list[tuple[str, str]]

NOT_CACHED: Final = ("Cache-Control", "no-store, no-cache, must-revalidate, max-age=0")
YEAR_SECONDS: Final = 31_536_000

_COOKIE: Final = re.compile(r"(?:^|;)\s*JSESSIONID=([\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]+)")


def cors(handshake: Handshake, allowed: Sequence[str]) -> Headers:
    """Lets pages of the service's own origin and of `allowed` read the answer, with their visitors' cookies.

    For `*` the protocol wants a star where the request names no origin, or `null`.
    """
    headers: Headers = [("Vary", "Origin")]
    origin = handshake.headers.get("origin", "null")
    if origin == "null":
        if "*" not in allowed:
            return headers
        origin = "*"
    elif not origin_allowed(handshake, allowed):
        return headers
    headers += [("Access-Control-Allow-Origin", origin), ("Access-Control-Allow-Credentials", "true")]
    asked = handshake.headers.get("access-control-request-headers")
    if asked:
        headers.append(("Access-Control-Allow-Headers", asked))
    return headers


def cached(until: str) -> Headers:
    """Kept for a year; `until` is the date then, as HTTP writes it."""
    return [("Cache-Control", f"public, max-age={YEAR_SECONDS}"), ("Expires", until)]


def preflight(methods: Sequence[str]) -> Headers:
    """What a browser asks before a request across origins."""
    return [
        ("Access-Control-Allow-Methods", ", ".join(methods)),
        ("Access-Control-Max-Age", str(YEAR_SECONDS)),
    ]


def session_cookie(headers: Mapping[str, str]) -> tuple[str, str]:
    """JSESSIONID: the client's own again, so that a balancer may add to it, or a dummy."""
    found = _COOKIE.search(headers.get("cookie", ""))
    return "Set-Cookie", f"JSESSIONID={found[1] if found else 'dummy'}; path=/"


def framed_by(allowed: Sequence[str]) -> tuple[str, str]:
    """Which pages may show the answer in a frame: those that may connect."""
    return "Content-Security-Policy", "frame-ancestors " + ("*" if "*" in allowed else " ".join(("'self'", *allowed)))


def with_origin(handshake: Handshake) -> Handshake:
    """The request with the origin of its page, where the browser tells it otherwise than by an Origin header.

    For scripts, frames and GETs within an origin browsers send none. They say whether such a request crosses
    origins, though, and mostly from which page it comes; from an unknown page it comes from `null`.
    """
    headers = handshake.headers
    site = headers.get("sec-fetch-site", "none")
    if "origin" in headers or site == "none":
        return handshake
    scheme, _, rest = headers.get("referer", "").partition("://")
    origin = f"{scheme}://{rest.partition('/')[0]}" if rest else "null"
    if site == "same-origin":
        origin = f"{'https' if handshake.secure else 'http'}://{headers.get('host', '')}"
    return structs.replace(handshake, headers={**headers, "origin": origin})
