"""STOMP over SockJS's HTTP requests, one by one: the test decides when its client asks again."""

import json
import uuid
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from tests.support.frames import Frame, decode, encode
from tests.support.http import Http, Reply, fetch


class Fallback:
    """A client over `xhr_streaming` (or `xhr`: `streaming` False), through the port of a node or of a proxy."""

    def __init__(
        self,
        port: int,
        *,
        prefix: str = "/chat-websocket",
        streaming: bool = True,
        headers: Mapping[str, str] | None = None,
        session: str = "",
    ) -> None:
        self.port = port
        self.url = f"{prefix}/000/{session or uuid.uuid4().hex}"
        self.headers = dict(headers or {})
        self.streaming = streaming
        self._connection: Http | None = None
        self._reply: Reply | None = None
        self._asked = False
        self._rest = b""
        self._frames: list[Frame] = []
        self.opened = False
        self.closed: tuple[int, str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.drop()

    def open(self, login: str) -> Self:
        """CONNECT, and wait for CONNECTED."""
        while not self.opened:
            self.turn()
        self.say("CONNECT", {"accept-version": "1.2", "login": login, "heart-beat": "0,0"})
        connected = self.frame()
        assert connected.command == "CONNECTED", connected
        return self

    def say(self, command: str, headers: Mapping[str, str], body: bytes = b"") -> None:
        """One frame, in a sending request of its own."""
        text = encode(command, headers, body).decode()
        reply = fetch(self.port, "POST", self.url + "/xhr_send", headers=self.headers, body=json.dumps([text]).encode())
        assert reply.status == 204, (reply.status, reply.body)

    def subscribe(self, destination: str) -> None:
        """SUBSCRIBE, and wait for the receipt."""
        self.say("SUBSCRIBE", {"id": "s", "destination": destination, "receipt": "subscribed"})
        assert self.frame().command == "RECEIPT"

    def frame(self) -> Frame:
        """The next STOMP frame, by as many requests as it takes."""
        while not self._frames:
            assert self.closed is None, self.closed
            self.turn()
        return self._frames.pop(0)

    def turn(self) -> None:
        """Read on: one frame of SockJS, or the end of a response. Where none is open a request is made."""
        if self._reply is None:
            self.request()
            if self.streaming:
                return  # with its beginning, frames may have come
        assert self._reply is not None
        if not self.streaming:
            self._take(self._reply.load().body)
            self._reply = None
            return
        chunk = self._reply.chunk()
        if chunk:
            # A proxy may cut the stream into other chunks.
            whole, end, self._rest = (self._rest + chunk).rpartition(b"\n")
            self._take(whole + end)
        else:
            self._reply = None

    def request(self) -> None:
        """Begin a receiving request, and wait for its answer to begin."""
        if not self._asked:
            self.ask()
        assert self._connection is not None
        self._asked = False
        self._reply = self._connection.head()
        assert self._reply.status == 200, self._reply.status
        self._rest = b""
        while self.streaming and not self._rest.startswith(b"h" * 2048 + b"\n"):
            self._rest += self._reply.chunk()
        if self.streaming:
            whole, end, self._rest = self._rest[2049:].rpartition(b"\n")
            self._take(whole + end)

    def ask(self) -> None:
        """Send a receiving request."""
        if self._connection is None:
            self._connection = Http(self.port)
        kind = "xhr_streaming" if self.streaming else "xhr"
        self._connection.send("POST", f"{self.url}/{kind}", headers=self.headers)
        self._asked = True

    def until_response_ends(self) -> None:
        """Read until the server ends the response, and ask for no other."""
        assert self.streaming
        while self._reply is not None:
            self.turn()

    def hop(self, port: int, *, streaming: bool) -> None:
        """From the next request on, use this node, and this way. No response may be open."""
        assert self._reply is None
        self.drop()
        self.port, self.streaming = port, streaming

    def drop(self) -> None:
        """Cut the receiving connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._reply = None
            self._asked = False

    def _take(self, data: bytes) -> None:
        for line in data.decode().splitlines():
            match line[:1]:
                case "o":
                    self.opened = True
                case "a":
                    for text in json.loads(line[1:]):
                        self._frames += decode(text.encode())
                case "c":
                    code, reason = json.loads(line[1:])
                    self.closed = (code, reason)
                case _:
                    assert line == "h", line
