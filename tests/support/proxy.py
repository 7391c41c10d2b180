"""A proxy before a Redis or Valkey that loses messages of subscriptions too."""

from collections.abc import Callable

from postroom.testing.proxy import Address, Change, Proxy


class LossyProxy(Proxy):
    """See `Proxy`. `dropped` messages were lost so far."""

    def __init__(self, target: Address, *, seed: int = 1) -> None:
        super().__init__(target, seed=seed)
        self.dropped = 0
        self._share = 0.0

    def drop_pubsub(self, share: float) -> None:
        """Lose this share of the messages of subscriptions."""
        self._share = share

    def heal(self) -> None:
        """See `Proxy.heal`."""
        self._share = 0.0
        super().heal()

    def changes(self) -> tuple[Change, Change]:
        """See `Proxy.changes`."""
        requests, _ = super().changes()
        return requests, Replies(self._keeps).feed

    def _keeps(self) -> bool:
        if self.random.random() < self._share:
            self.dropped += 1
            return False
        return True


class Replies:
    """What a server says on one connection. On one that has subscribed, messages that `keeps` refuses are left out."""

    def __init__(self, keeps: Callable[[], bool]) -> None:
        self._keeps = keeps
        self._subscribed: bool | None = None
        self._waiting = b""

    def feed(self, data: bytes) -> bytes:
        """What of `data` goes on."""
        if self._subscribed is None and b"subscribe\r\n" in data[:40]:
            self._subscribed = True
        if not self._subscribed:
            return data
        self._waiting += data
        out, start = [], 0
        while (end := _end(self._waiting, start)) is not None:
            reply = self._waiting[start:end]
            if not (reply.startswith((b"*3\r\n$7\r\nmessage", b"*3\r\n$8\r\nsmessage")) and not self._keeps()):
                out.append(reply)
            start = end
        self._waiting = self._waiting[start:]
        return b"".join(out)


def _end(data: bytes, start: int) -> int | None:
    """Where the RESP value at `start` ends; None: not all of it is there."""
    line = data.find(b"\r\n", start)
    if line < 0:
        return None
    kind, end = data[start : start + 1], line + 2
    if kind == b"$":
        size = int(data[start + 1 : line])
        end += size + 2 if size >= 0 else 0
        return end if end <= len(data) else None
    if kind in (b"*", b">"):
        for _ in range(int(data[start + 1 : line])):
            found = _end(data, end)
            if found is None:
                return None
            end = found
    return end
