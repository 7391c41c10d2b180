"""One SockJS session over HTTP requests, without I/O: what its client has yet to get, and what it has proven.

A session outlives its requests. At most one of them receives: it attaches, takes frames, and detaches when its
response is complete. What the server writes meanwhile and in between waits here. Only the next receiving request
proves that the client got the response before it: a request on another connection proves nothing.
"""

from collections import deque
from typing import Final

from postroom.sockjs import framing

INTERRUPTED: Final = (1002, "Connection interrupted")
OTHER_OPEN: Final = framing.close(2010, "Another connection still open")


class Session:
    """The state of one session. Its first frame is `o`; its last, repeated for as long as it is kept, `c[...]`."""

    __slots__ = (
        "_close_frame",
        "_elements",
        "_opened",
        "_probed",
        "_probes",
        "_proven",
        "_taken",
        "_written",
        "attached",
        "pending_bytes",
        "said_goodbye",
    )

    def __init__(self) -> None:
        self.attached = False
        self.said_goodbye = False  # the close frame was taken
        self.pending_bytes = 0
        self._opened = False
        self._close_frame: bytes | None = None
        self._elements: list[bytes] = []
        self._written = self._taken = self._proven = self._probed = 0
        self._probes: deque[tuple[int, bytes]] = deque()

    # ── the server's side ─────────────────────────────────────────────────────────────────────────────

    def write(self, elements: bytes) -> None:
        """Messages that `framing.element` made; one, or several put together. Nothing once it is closing."""
        if self._close_frame is None:
            self._elements.append(elements)
            self.pending_bytes += len(elements)
            self._written += len(elements)

    def probe(self, token: bytes) -> bool:
        """Remember `token` until the next receiving request proves all that was written so far.

        True: it is proven already. Where nothing new was written the question is whether there is still somebody,
        and only a request to come can tell.
        """
        new, self._probed = self._written > self._probed, self._written
        if new and self._written <= self._proven:
            return True
        self._probes.append((self._written, token))
        return False

    def close(self, code: int, reason: str) -> None:
        """After what was written comes this close frame, to every request until the session is forgotten."""
        if self._close_frame is None:
            self._close_frame = framing.close(code, reason)

    def interrupt(self) -> None:
        """A response broke off, so that nobody knows what arrived: no more messages, only the close frame."""
        self.close(*INTERRUPTED)
        self._elements = []
        self.pending_bytes = 0
        self._probes.clear()

    @property
    def closing(self) -> bool:
        """Whether nothing more can be written."""
        return self._close_frame is not None

    @property
    def unproven(self) -> bool:
        """Whether a probe waits for the next receiving request."""
        return bool(self._probes)

    @property
    def has_frame(self) -> bool:
        """Whether `take` has something to give."""
        return not self._opened or bool(self._elements) or self._close_frame is not None

    # ── the client's ──────────────────────────────────────────────────────────────────────────────────

    def attach(self) -> list[bytes]:
        """A receiving request begins: the client has what was taken before. The probes that this answers."""
        self.attached = True
        self._proven = self._taken
        proved = []
        while self._probes and self._probes[0][0] <= self._proven:
            proved.append(self._probes.popleft()[1])
        return proved

    def take(self) -> bytes | None:
        """The next frame for the request that is attached; None: there is nothing to say."""
        if not self._opened:
            self._opened = True
            return framing.OPEN
        if self._elements:
            joined = self._elements[0] if len(self._elements) == 1 else b"".join(self._elements)
            self._elements = []
            self.pending_bytes = 0
            self._taken = self._written
            return framing.array_of(joined)
        if self._close_frame is not None:
            self.said_goodbye = True
        return self._close_frame

    def detach(self) -> None:
        """The receiving request has its response, whole."""
        self.attached = False
