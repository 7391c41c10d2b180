"""The pipe to one client, seen from both ends."""

from collections.abc import Callable, Mapping
from typing import Protocol

from msgspec import Struct

Framing = Callable[[bytes], bytes]
"""Wraps one payload for the wire. Equal framings give equal bytes, so a frame is built once for many pipes."""


class Handshake(Struct, frozen=True):
    """The HTTP request that opened the pipe.

    `path` is percent-decoded and has no query; `headers` have lower-case names (a repeated header's values are
    joined with `, `); `peer_address` is `unix` over a Unix socket; `subprotocol` is the one that was agreed on,
    or None. `messages` is False where the pipe carries a stream of bytes that nothing cuts into messages (TCP):
    path and headers are empty then.
    """

    path: str
    query: str
    headers: Mapping[str, str]
    peer_address: str
    secure: bool
    subprotocol: str | None = None
    messages: bool = True


class Transport(Protocol):
    """What a session may do to its client. Nothing here blocks or raises; all of it is silent once closed."""

    @property
    def framing(self) -> Framing:
        """How a payload becomes what `write` takes."""
        ...

    def write(self, data: bytes) -> None:
        """Send bytes that `framing` made: one frame, or several joined."""
        ...

    def probe(self, token: bytes) -> bool:
        """Ask for proof that all written so far arrived; `Receiver.proved` answers. False: this pipe cannot."""
        ...

    def close(self, code: int, reason: str = "") -> None:
        """Say goodbye after what was written, then end. `reason` is cut to 123 bytes of UTF-8."""
        ...

    def abort(self) -> None:
        """End at once; what is not yet sent is dropped. For a client that does not read."""
        ...

    def pause_reading(self) -> None:
        """Let the client wait: `Receiver.receive` is not called until `resume_reading`."""
        ...

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""
        ...

    @property
    def buffered_bytes(self) -> int:
        """Accepted by `write` and not yet with the kernel."""
        ...


class Receiver(Protocol):
    """What a pipe tells whoever sits on it: in order, on the loop, `lost` exactly once and last."""

    def receive(self, data: bytes) -> None:
        """One whole message of the client (text or binary)."""
        ...

    def proved(self, token: bytes, *, alive: bool = True) -> None:
        """The client has everything that was written before the probe with this token.

        `alive` is False where only its system said so: that is no sign of the client itself.
        """
        ...

    def writable(self) -> None:
        """The transport's own buffer, over its high-water mark before, is low again."""
        ...

    def lost(self, code: int, reason: str) -> None:
        """The pipe is gone; `code` as in RFC 6455, section 7.4 (1006: without a close frame)."""
        ...


Accept = Callable[[Handshake, Transport], Receiver]
"""Takes a new pipe. Called right after the 101 was sent; must not raise."""


class Endpoint(Struct, frozen=True):
    """What is served at a WebSocket path.

    `check` runs before the upgrade and raises HandshakeRefused (origin, credentials, limits); `subprotocols`
    are those that the server speaks, best first (a client that offers none is served without one). `versions`
    of the protocol: 7 and 8 were its drafts, with the same framing.
    """

    accept: Accept
    check: Callable[[Handshake], None]
    subprotocols: tuple[str, ...] = ()
    versions: tuple[str, ...] = ("13",)


Route = Callable[[str], Endpoint | None]
"""The endpoint at a path; None: not ours, the ASGI application answers."""
