"""The services that SockJS's own protocol tests expect: `/echo`, two variants of it, and `/close`.

python examples/sockjs_echo.py --port 8081
"""

import argparse

import uvicorn
from msgspec import structs
from starlette.types import Receive, Scope, Send

from postroom.sockjs import Options, SockJS
from postroom.transport.base import Accept, Endpoint, Handshake, Receiver, Transport
from postroom.transport.front import FrontLimits, front

OPTIONS = Options(origins=("*",), jsonp=True, iframe=True, response_bytes=4096)


class Echo:
    """Sends back what it gets; a client that does not fetch its echoes is not listened to."""

    def __init__(self, pipe: Transport) -> None:
        self._pipe = pipe

    def receive(self, data: bytes) -> None:
        """One message."""
        self._pipe.write(self._pipe.framing(data))
        if self._pipe.buffered_bytes > 1024 * 1024:
            self._pipe.pause_reading()

    def proved(self, token: bytes, *, alive: bool = True) -> None:
        """Nothing was asked."""

    def writable(self) -> None:
        """The client reads again."""
        self._pipe.resume_reading()

    def lost(self, code: int, reason: str) -> None:
        """The client is gone."""


def echo(handshake: Handshake, pipe: Transport) -> Receiver:
    """A new session."""
    return Echo(pipe)


def close(handshake: Handshake, pipe: Transport) -> Receiver:
    """A new session, which is over at once."""
    pipe.close(3000, "Go away!")
    return Echo(pipe)


def service(accept: Accept) -> Endpoint:
    """Everybody may come in."""
    return Endpoint(accept=accept, check=lambda handshake: None)


SERVICES = [
    SockJS("/echo", service(echo), OPTIONS),
    SockJS("/disabled_websocket_echo", service(echo), structs.replace(OPTIONS, websocket=False)),
    SockJS("/cookie_needed_echo", service(echo), structs.replace(OPTIONS, cookie=True)),
    SockJS("/close", service(close), OPTIONS),
]


async def web(scope: Scope, receive: Receive, send: Send) -> None:
    """Each request to its service."""
    found = next((each for each in SERVICES if each.serves(scope["path"])), SERVICES[0])
    await found(scope, receive, send)


def route(path: str) -> Endpoint | None:
    """Each WebSocket to its service."""
    return next((found for each in SERVICES if (found := each.route(path)) is not None), None)


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8081)
    chosen = parser.parse_args()
    config = uvicorn.Config(
        web,
        host=chosen.host,
        port=chosen.port,
        http=front(route, FrontLimits()),  # type: ignore[arg-type]
        lifespan="off",
        log_level="warning",
    )
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main()
