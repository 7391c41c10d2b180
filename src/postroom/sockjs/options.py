"""What a SockJS service may be told."""

from typing import Final

from msgspec import Struct

CLIENT_URL: Final = "https://cdn.jsdelivr.net/npm/sockjs-client@1.6.1/dist/sockjs.min.js"


class Options(Struct, frozen=True):
    """How one service behaves; the defaults are those of the protocol, and of a careful operator.

    `origins` are the pages that may connect beside those of the service's own origin (`*`: all, with the cookies
    of whoever visits them). `websocket` False leaves the HTTP transports alone. `jsonp` and `iframe` (the page
    `/iframe.html` and the htmlfile transport) are for browsers without CORS, which nobody has any more; both let
    pages reach the service by ways that Origin headers do not guard. `cookie` sets JSESSIONID, for balancers that
    want one. `client_url` is the script that the iframe page loads.

    A receiving request gets a heart-beat after `heartbeat_seconds` of silence. A session without one ends after
    `disconnect_seconds`. A streaming response ends after `response_bytes`, and after `prove_seconds` of silence
    where it holds what only the next request proves. A request's body has at most `body_bytes`, and at most
    `pending_bytes` wait for a client.
    """

    origins: tuple[str, ...] = ()
    websocket: bool = True
    jsonp: bool = False
    iframe: bool = False
    cookie: bool = False
    client_url: str = CLIENT_URL
    heartbeat_seconds: float = 25.0
    disconnect_seconds: float = 5.0
    response_bytes: int = 128 * 1024
    prove_seconds: float = 2.0
    body_bytes: int = 1024 * 1024
    pending_bytes: int = 4 * 1024 * 1024
