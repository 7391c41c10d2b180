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
        self._streaming = streaming
        self._connection: Http | None = None
        self._reply: Reply | None = None
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
        assert self._reply is not None
        if not self._streaming:
            self._take(self._reply.load().body)
            self._reply = None
            return
        chunk = self._reply.chunk()
        if chunk:
            self._take(chunk)
        else:
            self._reply = None

    def request(self) -> None:
        """Begin a receiving request."""
        if self._connection is None:
            self._connection = Http(self.port)
        kind = "xhr_streaming" if self._streaming else "xhr"
        self._reply = self._connection.ask("POST", f"{self.url}/{kind}", headers=self.headers)
        assert self._reply.status == 200, self._reply.status
        if self._streaming:
            assert len(self._reply.chunk()) == 2049

    def until_response_ends(self) -> None:
        """Read until the server ends the response, and ask for no other."""
        assert self._streaming
        while self._reply is not None:
            self.turn()

    def drop(self) -> None:
        """Cut the receiving connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._reply = None

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
