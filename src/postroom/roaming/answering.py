"""A request that came to another node, from the side of the node that answers it."""

import asyncio
from collections.abc import Callable, MutableMapping
from typing import Any, Final

from postroom.envelope import Call, Got, Item, Part
from postroom.sockjs.exchange import Gone as ClientGone
from postroom.transport.asgi import Scope
from postroom.transport.handshake import UNIX

RECEIVED_SECONDS: Final = 5.0
"""While parts are unwritten the other node must say so often how far it is."""

_WINDOW: Final = 8
_PIECE: Final = 256 * 1024


class Answering:
    """One request of another node's client, as an ASGI scope with its `receive` and `send`.

    `send` returns while a few parts are on their way, and for the last one once all are written to the client. It
    raises Gone where the client has left, and where a part or its acknowledgement was lost.
    """

    __slots__ = ("_body", "_gone", "_head", "_news", "_number", "_send", "_sent", "_written", "scope")

    def __init__(self, call: Call, *, send: Callable[[Item], None]) -> None:
        self.scope = _scope(call)
        self._number = call.number
        self._body: bytes | None = call.body
        self._send = send
        self._head: MutableMapping[str, Any] | None = None
        self._sent = self._written = 0
        self._gone = False
        self._news = asyncio.Event()

    # ── what the other node says ──────────────────────────────────────────────────────────────────────

    def got(self, got: Got) -> None:
        """So much is written; as much as before where the client reads slowly."""
        self._written = max(self._written, got.written)
        self._news.set()

    def leave(self) -> None:
        """The client has left, or its node has."""
        self._gone = True
        self._news.set()

    # ── ASGI ──────────────────────────────────────────────────────────────────────────────────────────

    async def receive(self) -> MutableMapping[str, Any]:
        """The request's body, then the client's leaving."""
        body, self._body = self._body, None
        if body is not None:
            return {"type": "http.request", "body": body, "more_body": False}
        while not self._gone:
            await self._wait()
        return {"type": "http.disconnect"}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """A part of the answer. Raises Gone."""
        if message["type"] == "http.response.start":
            self._head = message
            return
        body: bytes = message.get("body", b"")
        last = not message.get("more_body", False)
        for start in range(0, max(1, len(body)), _PIECE):
            await self._room(_WINDOW - 1)
            self._piece(body[start : start + _PIECE], last=last and start + _PIECE >= len(body))
        if last:
            await self._room(0)

    def _piece(self, body: bytes, *, last: bool) -> None:
        head, self._head = self._head, None
        self._sent += 1
        status = head["status"] if head is not None else 0
        headers = [(bytes(name), bytes(value)) for name, value in head["headers"]] if head is not None else []
        self._send(Part(self._number, self._sent, status, headers, body, last))

    async def _room(self, outstanding: int) -> None:
        """Wait until no more than so many parts are unwritten. Raises Gone."""
        while not self._gone and self._sent - self._written > outstanding:
            try:
                # What has come may take its time to be written, but then we hear that it has come.
                async with asyncio.timeout(RECEIVED_SECONDS):
                    await self._wait()
            except TimeoutError:
                self.leave()
        if self._gone:
            raise ClientGone

    async def _wait(self) -> None:
        self._news.clear()
        await self._news.wait()


def _scope(call: Call) -> Scope:
    unix = call.peer_address == UNIX
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": call.method,
        "path": call.path,
        "root_path": "",
        "query_string": call.query.encode("latin-1"),
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in call.headers.items()],
        "scheme": "https" if call.secure else "http",
        "client": (call.peer_address, 0) if call.peer_address and not unix else None,
        "server": ("", None if unix else 0),
    }
