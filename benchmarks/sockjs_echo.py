"""The echo service that `benchmarks.fallbacks` measures: python -m benchmarks.sockjs_echo PORT."""

import sys

import uvicorn

from postroom.sockjs import Options, SockJS
from postroom.transport.base import Endpoint, Handshake, Receiver, Transport
from postroom.transport.front import FrontLimits, front


class Echo:
    """Sends back what it gets."""

    def __init__(self, pipe: Transport) -> None:
        self._pipe = pipe

    def receive(self, data: bytes) -> None:
        self._pipe.write(self._pipe.framing(data))

    def proved(self, token: bytes, *, alive: bool = True) -> None: ...

    def writable(self) -> None: ...

    def lost(self, code: int, reason: str) -> None: ...


def accept(handshake: Handshake, pipe: Transport) -> Receiver:
    return Echo(pipe)


def main() -> None:
    echo = SockJS("/echo", Endpoint(accept=accept, check=lambda handshake: None), Options(websocket=False))
    http = front(echo.route, FrontLimits())
    config = uvicorn.Config(
        echo,
        port=int(sys.argv[1]),
        http=http,  # type: ignore[arg-type]
        lifespan="off",
        log_level="error",
        proxy_headers=False,
        access_log=False,
    )
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main()
