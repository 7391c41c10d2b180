"""Echo text and binary messages at `/`, through Postroom's WebSocket transports alone.

python examples/ws_echo.py --port 9001
python examples/ws_echo.py --port 9001 --asgi
"""

import argparse
from typing import Any

import uvicorn
from starlette.applications import Starlette

from postroom.transport.asgi import AsgiTransport, Receive, Scope, Send, serve_websocket
from postroom.transport.base import Endpoint, Handshake, Receiver, Transport
from postroom.transport.deflate import Compression
from postroom.transport.front import FrontLimits, front
from postroom.transport.native import NativeTransport

MAX_BYTES = 64 * 1024 * 1024


class Echo:
    """Sends back what it gets; a client that does not read its echoes is not read from."""

    def __init__(self, pipe: NativeTransport | AsgiTransport) -> None:
        self._pipe = pipe

    def receive(self, data: bytes) -> None:
        """One message."""
        self._pipe.send(data, text=self._pipe.last_was_text)
        if self._pipe.buffered_bytes > 1024 * 1024:
            self._pipe.pause_reading()

    def proved(self, token: bytes, *, alive: bool = True) -> None:
        """Nothing was asked."""

    def writable(self) -> None:
        """The client reads again."""
        self._pipe.resume_reading()

    def lost(self, code: int, reason: str) -> None:
        """The client is gone."""


def accept(handshake: Handshake, pipe: Transport) -> Receiver:
    """A new connection."""
    assert isinstance(pipe, NativeTransport | AsgiTransport)
    return Echo(pipe)


ENDPOINT = Endpoint(accept=accept, check=lambda handshake: None)


def native(*, compress: bool) -> dict[str, Any]:
    """How uvicorn serves `/` through the native transport."""
    limits = FrontLimits(max_message_bytes=MAX_BYTES, compression=Compression(min_bytes=0) if compress else None)
    return {"app": Starlette(), "http": front(lambda path: ENDPOINT if path == "/" else None, limits)}


def asgi(*, compress: bool) -> dict[str, Any]:
    """How uvicorn serves every path through its own WebSockets."""
    return {
        "app": asgi_app,
        "ws": "websockets-sansio",
        "ws_max_size": MAX_BYTES,
        "ws_per_message_deflate": compress,
    }


async def asgi_app(scope: Scope, receive: Receive, send: Send) -> None:
    """WebSockets at every path, and nothing else."""
    if scope["type"] == "websocket":
        await serve_websocket(scope, receive, send, ENDPOINT, path=scope["path"], max_bytes=MAX_BYTES)
    else:
        await Starlette()(scope, receive, send)


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9001)
    parser.add_argument("--asgi", action="store_true", help="through the server's own WebSockets")
    parser.add_argument(
        "--compress",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="agree to permessage-deflate where the client offers it",
    )
    options = parser.parse_args()
    form = asgi if options.asgi else native
    config = uvicorn.Config(
        host=options.host,
        port=options.port,
        lifespan="off",
        log_level="warning",
        **form(compress=options.compress),
    )
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main()
