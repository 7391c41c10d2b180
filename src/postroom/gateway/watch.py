"""The deadlines of one client: CONNECT, credentials, heart-beats both ways."""

import math
from typing import Final

_SILENCE_FACTOR: Final = 3
"""A client is gone after this many of its heart-beat intervals without a sign, as in Spring's broker."""


class Late(Exception):
    """The client has not done in time what it must. `str()` tells it what."""


class Watch:
    """When a client was last heard and written to, and by when something must happen again.

    What gives a time gives the one to look again at (monotonic seconds), and raises Late once it is too late.
    """

    __slots__ = ("_opened", "_signs", "_writes", "last_heard")

    def __init__(self, now: float) -> None:
        self._opened = self.last_heard = now
        self._signs = 0
        self._writes = -1

    def connect(self, now: float, seconds: float) -> float:
        """No CONNECT came yet; it has `seconds` from the opening."""
        if now - self._opened >= seconds:
            raise Late(f"no CONNECT within {seconds:g} s")
        return self._opened + seconds

    def credentials(self, now: float, expires_at: float | None, wall: float) -> float:
        """It is `wall` by the clock that the credentials' end is told by."""
        if expires_at is None:
            return math.inf
        if wall >= expires_at:
            raise Late("your credentials have expired")
        return now + expires_at - wall

    def heard(self, now: float, signs: int) -> None:
        """So many signs of life came since the opening."""
        if signs != self._signs:
            self._signs, self.last_heard = signs, now

    def silence(self, now: float, interval_ms: int) -> float:
        """The client promised a sign every `interval_ms`; 0: it promised none."""
        if not interval_ms:
            return math.inf
        seconds = interval_ms / 1000 * _SILENCE_FACTOR
        if now - self.last_heard >= seconds:
            raise Late(f"nothing heard from you for {seconds:g} s")
        return self.last_heard + seconds

    def quiet(self, writes: int) -> bool:
        """Whether nothing was written since the last look: a heart-beat is due."""
        quiet = writes == self._writes
        self._writes = writes
        return quiet
