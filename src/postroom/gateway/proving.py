"""Proof of receipt without the client's help: probes are sent, their answers move cursors."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from postroom.delivery.proof import Prober
from postroom.session import Session
from postroom.subscription import Follower
from postroom.transport.base import Transport

if TYPE_CHECKING:
    from postroom.gateway.desk import Desk, Limits

_LATE: Final = 0.25
"""How much later than its deadline, as a share of it, a probe without an answer may be noticed."""


def ask(session: Session, transport: Transport, *, now: float) -> bool:
    """Ask for proof of what was written, unless nothing needs it or a probe is outstanding.

    False, once: it turned out that this pipe cannot be asked.
    """
    prober = session.prober
    if prober is None:
        prober = session.prober = Prober()
    if prober.outstanding is not None or prober.signs is not None:
        return True
    marks = session.unproven()
    if not marks or transport.probe(prober.begin(marks, now)):
        return True
    prober.unavailable()
    return False


def frame(desk: "Desk", session: Session, transport: Transport, *, frames: int, now: float) -> None:
    """The client sent a frame, its `frames`th: that may prove what was sent to it before."""
    prober = session.prober
    if prober is None:
        return
    prove(desk, prober.frames(frames))
    signs = prober.signs
    if signs is None:
        return
    prove(desk, signs.frame(now))
    if not signs.watching and transport.buffered_bytes == 0 and not session.outbox.dirty:
        signs.watch(session.unproven(), now)


def answered(desk: "Desk", prober: Prober[Follower], token: bytes, *, frames: int) -> None:
    """The client answered a probe: that proves receipt; of what must be handled, two further frames do."""
    direct: list[tuple[Follower, int]] = []
    for follower, through in prober.answered(token):
        if follower.proof_handled:
            prober.wait_for_frames(follower, through, frames)
        else:
            direct.append((follower, through))
    prove(desk, direct)


def prove(desk: "Desk", marks: Sequence[tuple[Follower, int]]) -> None:
    """Each follower's client has all up to the offset beside it.

    Behind an UNSUBSCRIBE that says nothing: the client has thrown away what came after it.
    """
    for follower, through in marks:
        if follower.closed:
            continue
        proven = follower.window.prove(through)
        if proven is not None:
            desk.mailbox.confirm(follower, proven)


def check(session: Session, transport: Transport, limits: "Limits", *, last_heard: float, now: float) -> float | None:
    """When to look again; None where a probe was not answered in time. One who is silent for long is probed."""
    prober = session.prober
    if prober is not None and prober.outstanding is not None:
        return None if now - prober.since >= limits.probe_seconds else prober.since + limits.probe_seconds
    if now - last_heard < limits.idle_probe_seconds:
        # Nobody is told of each probe that begins: where there are some, look often enough.
        due = now + limits.probe_seconds * _LATE if prober is not None else math.inf
        return min(due, last_heard + limits.idle_probe_seconds)
    # Nobody promised heart-beats: a probe tells whether there is still somebody.
    if prober is None:
        prober = session.prober = Prober()
    if transport.probe(prober.begin([], now)):
        return now + limits.probe_seconds
    prober.unavailable()
    return now + limits.idle_probe_seconds
