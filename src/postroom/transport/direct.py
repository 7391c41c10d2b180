"""What a server of ours lets its application do past ASGI: a whole answer in one write, and to hear without a task of
its own that a client has left. Other servers have no such extension; then the application does as ASGI says."""

from collections.abc import Callable, Iterable, MutableMapping
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

_EXTENSION: Final = "postroom.direct"


class Direct:
    """One request, from behind uvicorn's back."""

    __slots__ = ("_cycle", "_left")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._left: Callable[[], None] | None = None

    def answer(self, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> bool:
        """Write a whole answer, its length among the headers; False: only ASGI's way will do.

        Raises ConnectionError where the client has left.
        """
        cycle = self._cycle
        if cycle.disconnected:
            raise ConnectionError
        if cycle.response_started or cycle.flow.write_paused or cycle.scope["method"] == "HEAD":
            return False
        lines = [f"{name}: {value}" for name, value in headers]
        if any("\r" in line or "\n" in line or line.startswith("Connection:") for line in lines):
            return False
        if not cycle.keep_alive:
            lines.append("Connection: close")
        head = "\r\n".join([*lines, "\r\n"]).encode("latin-1")
        named = [part for name, value in cycle.default_headers for part in (name, b": ", value, b"\r\n")]
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        cycle.transport.write(b"".join((STATUS_LINE[status], *named, head, body)))
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()
        return True

    def watch(self, left: Callable[[], None]) -> None:
        """Call `left` once the client has left, now if it has already."""
        self._left = left
        if self._cycle.disconnected:
            left()

    def abort(self) -> None:
        """Drop the connection at once: its client does not read."""
        self._cycle.transport.abort()

    def lost(self) -> None:
        """The connection is gone."""
        if self._left is not None and not self._cycle.response_complete:
            self._left()


def offer(cycle: RequestResponseCycle) -> Direct:
    """Let the application of this request do so."""
    direct = Direct(cycle)
    scope: Any = cycle.scope
    scope["extensions"] = {_EXTENSION: direct}
    return direct


def direct_of(scope: MutableMapping[str, Any]) -> Direct | None:
    """What the server offers for this request, if it is ours."""
    found = (scope.get("extensions") or {}).get(_EXTENSION)
    return found if isinstance(found, Direct) else None
