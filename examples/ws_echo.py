"""Echo text and binary messages at `/`, through Postroom's WebSocket transport alone.

python examples/ws_echo.py --port 9001
"""

import argparse

import uvicorn
from starlette.applications import Starlette

from postroom.transport.base import Endpoint, Handshake, Receiver, Transport
from postroom.transport.deflate import Compression
from postroom.transport.front import FrontLimits, front
from postroom.transport.native import NativeTransport

MAX_BYTES = 64 * 1024 * 1024


class Echo:
    """Sends back what it gets; a client that does not read its echoes is not read from."""

    def __init__(self, pipe: NativeTransport) -> None:
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
    assert isinstance(pipe, NativeTransport)
    return Echo(pipe)


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9001)
    parser.add_argument("--compress", action="store_true", help="agree to permessage-deflate")
    options = parser.parse_args()
    endpoint = Endpoint(accept=accept, check=lambda handshake: None)
    limits = FrontLimits(max_message_bytes=MAX_BYTES, compression=Compression() if options.compress else None)
    http = front(lambda path: endpoint if path == "/" else None, limits)
    config = uvicorn.Config(
        Starlette(),
        host=options.host,
        port=options.port,
        http=http,  # type: ignore[arg-type]
        lifespan="off",
        log_level="warning",
    )
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main()
