"""Which pages may open a connection (RFC 6455, section 10.2)."""

from collections.abc import Sequence

from postroom.transport.base import Handshake


def origin_allowed(handshake: Handshake, allowed: Sequence[str]) -> bool:
    """Whether the request's Origin may connect.

    Its own origin may (scheme, host and port as the Host header says), and those in `allowed`, compared
    exactly; `*` allows all. A request without Origin comes from no browser and may. `null` may not.
    """
    origin = handshake.headers.get("origin")
    if origin is None or "*" in allowed or origin in allowed:
        return True
    scheme, _, authority = origin.partition("://")
    host = handshake.headers.get("host", "")
    # Behind a proxy that ends TLS the scheme seen here is http; the host is what a page cannot forge.
    return bool(authority) and scheme in ("http", "https") and _with_port(authority) == _with_port(host)


def _with_port(authority: str) -> str:
    authority = authority.lower()
    for suffix in (":80", ":443"):
        authority = authority.removesuffix(suffix)
    return authority
