"""HTTP on a raw socket: what was sent, as it came, chunk by chunk."""

import socket
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from tests.support.deadline import DEADLINE


class Reply:
    """The head of an answer; its body is read as a whole (`body`) or in parts (`chunk`)."""

    def __init__(self, connection: "Http", status: int, version: str, headers: dict[str, str]) -> None:
        self._connection = connection
        self.status = status
        self.version = version
        self.headers = headers
        self.body = b""

    def __getitem__(self, name: str) -> str | None:
        return self.headers.get(name.lower())

    def chunk(self) -> bytes:
        """The next chunk; empty at the end."""
        assert self["transfer-encoding"] == "chunked", self.headers
        size = int(self._connection.line(), 16)
        data = self._connection.exactly(size)
        assert self._connection.line() == b""
        return data

    def load(self) -> Self:
        """Read the whole body."""
        if self["transfer-encoding"] == "chunked":
            while part := self.chunk():
                self.body += part
        elif self["content-length"] is not None:
            self.body = self._connection.exactly(int(self.headers["content-length"]))
        elif self.status not in (101, 204, 304):
            self.body = self._connection.rest()
        return self


class Http:
    """One connection."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
        self._reader = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        version: str = "1.1",
    ) -> Reply:
        """Send a request, and return once the head of the answer is here."""
        self.send(method, path, headers=headers, body=body, version=version)
        return self.head()

    def send(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        version: str = "1.1",
    ) -> None:
        """Send a request."""
        named = {"Host": f"127.0.0.1:{self.port}", **(headers or {})}
        if method == "POST":
            body = body or b""
        if body is not None:
            named.setdefault("Content-Length", str(len(body)))
        lines = [f"{method} {path} HTTP/{version}", *(f"{name}: {value}" for name, value in named.items())]
        self._socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode() + (body or b""))

    def head(self) -> Reply:
        """The head of the next answer."""
        protocol, status, _ = self.line().decode().split(" ", 2)
        headers: dict[str, str] = {}
        while line := self.line():
            name, _, value = line.decode("latin-1").partition(":")
            name, value = name.lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return Reply(self, int(status), protocol.removeprefix("HTTP/"), headers)

    def line(self) -> bytes:
        """A line, without its end. Raises ConnectionError at the end of the connection."""
        line = self._reader.readline()
        if not line:
            raise ConnectionError("the server closed the connection")
        return line.removesuffix(b"\n").removesuffix(b"\r")

    def exactly(self, size: int) -> bytes:
        """So many bytes."""
        data = self._reader.read(size)
        assert len(data) == size, data
        return data

    def rest(self) -> bytes:
        """All until the server closes."""
        return self._reader.read()

    def close(self) -> None:
        """Drop the connection."""
        self._reader.close()
        self._socket.close()


def fetch(
    port: int, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None
) -> Reply:
    """One request on a connection of its own, and the whole answer."""
    with Http(port) as connection:
        return connection.ask(method, path, headers=headers, body=body).load()
