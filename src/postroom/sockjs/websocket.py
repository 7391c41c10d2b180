"""SockJS over one WebSocket: its frames around ours (SockJS protocol 0.3.3, "WebSocket protocols")."""

import asyncio
from functools import lru_cache
from typing import Final

from msgspec import structs

from postroom.sockjs import framing, payload
from postroom.sockjs.polling import outward
from postroom.transport import websocket
from postroom.transport.base import Accept, Endpoint, Framing, Handshake, Receiver, Transport

_PROTOCOL_ERROR: Final = 1002


@lru_cache(maxsize=64)
def array_framing(below: Framing) -> Framing:
    """One payload as `a["..."]`, framed by `below`. What is not UTF-8 is replaced, see `framing.text_of`."""

    def wrap(payload: bytes) -> bytes:
        return below(framing.array(framing.text_of(payload)))

    return wrap


class Heartbeats:
    """Sends `h` to every SockJS WebSocket of a node, all by one timer."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._pipes: set[Transport] = set()
        self._frame = websocket.text_message(framing.HEARTBEAT)

    def add(self, pipe: Transport) -> None:
        """Beat for `pipe`."""
        if not self._pipes:
            asyncio.get_running_loop().call_later(self._seconds, self._beat)
        self._pipes.add(pipe)

    def discard(self, pipe: Transport) -> None:
        """It is gone."""
        self._pipes.discard(pipe)

    def _beat(self) -> None:
        for pipe in self._pipes:
            pipe.write(self._frame)
        if self._pipes:
            asyncio.get_running_loop().call_later(self._seconds, self._beat)


class SockJSTransport:
    """A transport that speaks SockJS to its client, and a receiver that takes SockJS from it."""

    __slots__ = ("_beats", "_pipe", "_receiver")

    def __init__(self, pipe: Transport, beats: Heartbeats) -> None:
        self._pipe = pipe
        self._beats = beats
        self._receiver: Receiver | None = None
        pipe.write(websocket.text_message(framing.OPEN))
        beats.add(pipe)

    def attach(self, receiver: Receiver) -> None:
        """Who gets what comes."""
        self._receiver = receiver

    @property
    def framing(self) -> Framing:
        """An array of one message."""
        return array_framing(self._pipe.framing)

    def write(self, data: bytes) -> None:
        """Send bytes that `framing` made."""
        self._pipe.write(data)

    def probe(self, token: bytes) -> bool:
        """The WebSocket's PING."""
        return self._pipe.probe(token)

    def close(self, code: int, reason: str = "") -> None:
        """A SockJS close frame, then the WebSocket's."""
        self._pipe.write(websocket.text_message(framing.close(*outward(code, reason))))
        self._pipe.close(1000 if code < 3000 and code != 1012 else code, reason)

    def abort(self) -> None:
        """End at once."""
        self._pipe.abort()

    def pause_reading(self) -> None:
        """Let the client wait."""
        self._pipe.pause_reading()

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""
        self._pipe.resume_reading()

    @property
    def buffered_bytes(self) -> int:
        """Written, and not yet with the kernel."""
        return self._pipe.buffered_bytes

    def receive(self, data: bytes) -> None:
        """A JSON array of strings, or one string."""
        if not data or self._receiver is None:
            return
        try:
            messages = payload.websocket_messages(data)
        except payload.BadPayload as error:
            self._pipe.close(_PROTOCOL_ERROR, str(error))
            return
        for message in messages:
            self._receiver.receive(message)

    def proved(self, token: bytes, *, alive: bool = True) -> None:
        """Passed on."""
        if self._receiver is not None:
            self._receiver.proved(token, alive=alive)

    def writable(self) -> None:
        """Passed on."""
        if self._receiver is not None:
            self._receiver.writable()

    def lost(self, code: int, reason: str) -> None:
        """The pipe is gone."""
        self._beats.discard(self._pipe)
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.lost(code, reason)


def framed(endpoint: Endpoint, beats: Heartbeats) -> Endpoint:
    """`endpoint`, behind SockJS."""
    return structs.replace(endpoint, accept=_accept(endpoint.accept, beats), subprotocols=())


def _accept(accept: Accept, beats: Heartbeats) -> Accept:
    def accept_sockjs(handshake: Handshake, pipe: Transport) -> Receiver:
        wrapped = SockJSTransport(pipe, beats)
        wrapped.attach(accept(handshake, wrapped))
        return wrapped

    return accept_sockjs
