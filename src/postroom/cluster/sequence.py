"""Counters by peer and subject: how a node notices that something published to it never came."""

from collections.abc import Iterable, Mapping
from typing import Final

_SERIES: Final = 1 << 32
"""A counter is the number of its series, times this, and a count from 1."""


class Outgoing:
    """What this node counts on each subject that it publishes to.

    A subject that was idle for two `beat`s is forgotten, and begins a new series: whoever follows it was told by
    then how far it had come.
    """

    __slots__ = ("_beats", "_counters", "_idle")

    def __init__(self) -> None:
        self._beats = 0
        self._counters: dict[str, int] = {}
        self._idle: dict[str, int] = {}

    def next(self, subject: str) -> int:
        """The number of the next publish to `subject`."""
        counter = (self._counters.get(subject) or self._beats * _SERIES) + 1
        self._counters[subject] = counter
        self._idle[subject] = 0
        return counter

    def beat(self) -> dict[str, int]:
        """The counters to name in a heart-beat."""
        self._beats += 1
        for subject in [subject for subject, idle in self._idle.items() if idle >= 2]:
            del self._counters[subject], self._idle[subject]
        for subject in self._idle:
            self._idle[subject] += 1
        return dict(self._counters)


class Incoming:
    """How far each peer's counter was heard, subject by subject. Every method says whether there is a hole."""

    __slots__ = ("_heard",)

    def __init__(self) -> None:
        self._heard: dict[str, dict[tuple[str, int], int]] = {}

    def heard(self, subject: str, node: str, incarnation: int, counter: int) -> bool:
        """A publish with this number has come. False for the next one, for the first of a series, for an old one."""
        peers = self._heard.setdefault(subject, {})
        known = peers.get((node, incarnation), -1)
        if counter <= known:
            return False
        peers[node, incarnation] = counter
        first = counter % _SERIES == 1 and counter // _SERIES > known // _SERIES
        return not first and counter != known + 1

    def named(self, node: str, incarnation: int, counters: Mapping[str, int], mine: Iterable[str]) -> list[str]:
        """A heart-beat names how far the peer has come: the subjects, out of `mine`, on which something is missing."""
        missing = []
        for subject in mine:
            counter = counters.get(subject)
            if counter is None:
                continue
            peers = self._heard.setdefault(subject, {})
            if counter > peers.get((node, incarnation), -1):
                peers[node, incarnation] = counter
                missing.append(subject)
        return missing

    def forget_subject(self, subject: str) -> None:
        """This node no longer follows `subject`."""
        self._heard.pop(subject, None)

    def forget_peer(self, node: str, incarnation: int) -> None:
        """The peer's lease has ended."""
        for peers in self._heard.values():
            peers.pop((node, incarnation), None)
