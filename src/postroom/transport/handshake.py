"""The opening handshake (RFC 6455, section 4.2), as strict as it says and as lenient as browsers need."""

import asyncio
import base64
import binascii
import socket
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote_to_bytes

from msgspec import Struct

from postroom.errors import HandshakeRefused

UNIX: Final = "unix"
"""The address of a client that came over a Unix socket."""

_MAX_HEADERS: Final = 100


class RequestHead(Struct, frozen=True):
    """The head of an HTTP request: method, target as sent, version, headers by lower-case name."""

    method: str
    target: str
    version: str
    headers: dict[str, str]

    @property
    def path(self) -> str:
        """The percent-decoded path. Raises HandshakeRefused."""
        path = self.target.partition("?")[0]
        try:
            return unquote_to_bytes(path).decode()
        except UnicodeDecodeError:
            raise HandshakeRefused(400, "the path is not UTF-8") from None

    @property
    def query(self) -> str:
        """What stands behind the `?`, as sent."""
        return self.target.partition("?")[2]

    @property
    def upgrades(self) -> bool:
        """Whether it asks for a WebSocket."""
        return "websocket" in _tokens(self.headers.get("upgrade", ""))


def peer_address(pipe: asyncio.Transport) -> str:
    """The client's IP address; `unix` over a Unix socket, which has none; empty where it has gone already."""
    peer = pipe.get_extra_info("peername")
    if isinstance(peer, tuple):
        return str(peer[0])
    carrier = pipe.get_extra_info("socket")
    return UNIX if carrier is not None and carrier.family == getattr(socket, "AF_UNIX", None) else ""


def parse_head(head: bytes) -> RequestHead | None:
    """The head in `head`, which ends before the empty line; None where it is malformed."""
    lines = head.decode("latin-1").split("\r\n")
    parts = lines[0].split(" ")
    if len(parts) != 3 or len(lines) > _MAX_HEADERS + 1 or not parts[1].startswith("/"):
        return None
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip() or "\n" in line or "\r" in line:
            return None
        name, value = name.lower(), value.strip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return RequestHead(parts[0], parts[1], parts[2], headers)


def check_upgrade(head: RequestHead, versions: Sequence[str] = ("13",)) -> str:
    """The client's key, if the request is what RFC 6455 section 4.2.1 asks for, in one of `versions`.

    Raises HandshakeRefused.
    """
    headers = head.headers
    if head.method != "GET":
        raise HandshakeRefused(HTTPStatus.METHOD_NOT_ALLOWED, "a WebSocket is opened with GET")
    if head.version != "HTTP/1.1":
        raise HandshakeRefused(HTTPStatus.BAD_REQUEST, "a WebSocket is opened with HTTP/1.1")
    if "host" not in headers:
        raise HandshakeRefused(HTTPStatus.BAD_REQUEST, "the Host header is missing")
    if "upgrade" not in _tokens(headers.get("connection", "")):
        raise HandshakeRefused(HTTPStatus.BAD_REQUEST, '"Connection" must be "Upgrade".')
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise HandshakeRefused(HTTPStatus.BAD_REQUEST, "an upgrade request has no body")
    if headers.get("sec-websocket-version") not in versions:
        raise HandshakeRefused(HTTPStatus.UPGRADE_REQUIRED, "this server speaks WebSocket version 13")
    key = headers.get("sec-websocket-key", "")
    try:
        valid = len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        valid = False
    if not valid:
        raise HandshakeRefused(HTTPStatus.BAD_REQUEST, "Sec-WebSocket-Key must be 16 bytes in base64")
    return key


def choose_subprotocol(headers: dict[str, str], spoken: Sequence[str]) -> str | None:
    """The first of `spoken` that the client offers; None where there is none, which is no refusal."""
    offered = _tokens(headers.get("sec-websocket-protocol", ""), lower=False)
    return next((name for name in spoken if name in offered), None)


def page_headers(head: RequestHead) -> dict[str, str]:
    """The request's headers, with the page's origin where RFC 6455 has it: drafts called it Sec-WebSocket-Origin."""
    headers = head.headers
    if headers.get("sec-websocket-version") != "13" and "sec-websocket-origin" in headers:
        return {**headers, "origin": headers["sec-websocket-origin"]}
    return headers


def refusal(status: int, reason: str) -> bytes:
    """A whole HTTP response that says no."""
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        return b"HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    body = (reason + "\n").encode()
    phrase = HTTPStatus(status).phrase
    extra = "Sec-WebSocket-Version: 13\r\n" if status == HTTPStatus.UPGRADE_REQUIRED else ""
    return (
        f"HTTP/1.1 {int(status)} {phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n{extra}Connection: close\r\n\r\n"
    ).encode() + body


def _tokens(value: str, *, lower: bool = True) -> list[str]:
    return [token.strip() for token in (value.lower() if lower else value).split(",")]
