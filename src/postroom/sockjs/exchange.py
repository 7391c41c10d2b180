"""One HTTP request of a SockJS client as ASGI brings it, and answers to it."""

from collections.abc import Callable, Iterable
from typing import Final

from postroom.sockjs.headers import Headers, with_origin
from postroom.transport.asgi import Receive, Scope, Send, handshake_of
from postroom.transport.direct import direct_of

NOT_FOUND: Final = b"404 Error: Page not found\n"
PLAIN: Final = ("Content-Type", "text/plain; charset=UTF-8")
_NOSNIFF: Final = ("X-Content-Type-Options", "nosniff")
_NO_BODY: Final = (204, 304)


class TooLarge(Exception):
    """The body is over its limit."""


class Gone(Exception):
    """The client went before its request was complete."""


class Exchange:
    """A request, and the one answer to it; `forwarded`: by another node. What writes raises Gone where it knows
    that the client will not get it."""

    __slots__ = ("_direct", "_receive", "_send", "forwarded", "handshake", "method")

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, path: str, forwarded: bool = False) -> None:
        self.forwarded = forwarded
        self.method: str = scope["method"]
        self.handshake = with_origin(handshake_of(scope, path))
        self._direct = direct_of(scope)
        self._receive = receive
        self._send = send

    async def body(self, max_bytes: int) -> bytes:
        """The request's body. Raises TooLarge, or Gone."""
        if int(_digits(self.handshake.headers.get("content-length", "0"))) > max_bytes:
            raise TooLarge
        body = bytearray()
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Gone
            body += message.get("body", b"")
            if len(body) > max_bytes:
                raise TooLarge
            if not message.get("more_body", False):
                return bytes(body)

    def watch(self, left: Callable[[], None]) -> bool:
        """Have `left` called once the client has left; False: somebody must wait for that in `gone`."""
        if self._direct is None:
            return False
        self._direct.watch(left)
        return True

    def abort(self) -> None:
        """Drop the client's connection, where the server lets us."""
        if self._direct is not None:
            self._direct.abort()

    async def gone(self) -> None:
        """Return once the client is gone. Call it when the request's body is of no interest any more."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def answer(self, status: int, headers: Iterable[tuple[str, str]], body: bytes = b"") -> None:
        """A whole answer."""
        named: Headers = [*headers]
        if status not in _NO_BODY:
            named.append(("Content-Length", str(len(body))))
        try:
            if self._direct is not None and self._direct.answer(status, [*named, _NOSNIFF], body):
                return
        except ConnectionError:
            raise Gone from None
        await self.start(status, named)
        await self.part(body, last=True)

    async def start(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        """The head of an answer whose body comes in parts."""
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in (*headers, _NOSNIFF)]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def part(self, body: bytes, *, last: bool = False) -> None:
        """A part of the body. Returns once the server has room for more."""
        await self._send({"type": "http.response.body", "body": body, "more_body": not last})


def _digits(text: str) -> str:
    return text if text.isdecimal() and len(text) < 20 else "0"
