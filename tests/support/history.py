"""What clients saw while the server was hurt, and whether that keeps the promises.

The promise: a SEND whose RECEIPT arrived reaches every owner of a cursor of that mailbox at least once, in append
order; within one subscription nothing comes twice; a redelivery is marked; what was confirmed does not come again.
"""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Owner = tuple[str, str]
"""A user, and the device whose cursor is meant; "" is the one that all other sessions share."""


@dataclass(frozen=True)
class Sent:
    """A SEND was written (again): its outcome is unknown until something else says it."""

    sender: str
    receiver: str
    seq: int
    key: str
    body: str


@dataclass(frozen=True)
class Receipted:
    """Its RECEIPT came."""

    key: str


@dataclass(frozen=True)
class Refused:
    """The server said no."""

    key: str


@dataclass(frozen=True)
class Unsure:
    """The server could not say whether it stored it: it may have, or may yet, behind what was sent later."""

    key: str


@dataclass(frozen=True)
class Subscribed:
    """A SUBSCRIBE is about to be written.

    `handles`: what comes counts only once it is `Handled`. `marks`: a repeat must say that it is one.
    """

    subscription: str
    owner: Owner
    handles: bool = False
    marks: bool = True


@dataclass(frozen=True)
class Got:
    """A MESSAGE came."""

    subscription: str
    key: str
    epoch: int
    offset: int
    previous: int
    redelivered: bool
    body: str
    skipped: int = 0


@dataclass(frozen=True)
class Handled:
    """A client has done with a message what it wants to, and may say so."""

    subscription: str
    key: str


@dataclass(frozen=True)
class Confirmed:
    """The server said that the cursor of the subscription's owner stands at `through`, or above."""

    subscription: str
    through: int
    epoch: int = 0


@dataclass(frozen=True)
class Gone:
    """The store itself has lost it, receipted or not: it is as if it had never been, and may be sent anew."""

    key: str


@dataclass(frozen=True)
class Lagging:
    """From here on no replica of the store hears what it is told; it is about to fail over."""


@dataclass(frozen=True)
class FailedOver:
    """A replica is the store now. What was confirmed, or noted as sent, since `Lagging` may be forgotten."""


@dataclass(frozen=True)
class Dropped:
    """It fell to the mailbox's bounds, and the owner was told so."""

    key: str
    owner: Owner


@dataclass(frozen=True)
class Lost:
    """A client lost its connection."""

    client: str


@dataclass(frozen=True)
class Fault:
    """The server was hurt."""

    name: str


Event = (
    Sent
    | Receipted
    | Refused
    | Unsure
    | Subscribed
    | Got
    | Handled
    | Confirmed
    | Gone
    | Lagging
    | FailedOver
    | Dropped
    | Lost
    | Fault
)


@dataclass
class History:
    """All events of a run, in the order in which the clients saw them. One process: that order is the truth."""

    events: list[Event] = field(default_factory=list)
    times: list[tuple[float, float]] = field(default_factory=list)
    noted: Callable[[Event], None] = lambda event: None
    now: Callable[[], tuple[float, float]] = lambda: (time.monotonic(), time.time())  # noqa: TID251  (for people)

    def note(self, event: Event) -> None:
        """Add `event`, now."""
        self.events.append(event)
        self.times.append(self.now())
        self.noted(event)

    def dump(self, path: Path) -> None:
        """Write it down for people, one JSON object a line."""
        with path.open("w", encoding="utf-8") as file:
            for (monotonic, wall), event in zip(self.times, self.events, strict=True):
                line: dict[str, Any] = {"t": monotonic, "wall": wall, "is": type(event).__name__, **asdict(event)}
                file.write(json.dumps(line) + "\n")


@dataclass(frozen=True)
class Enough:
    """What a run must have had, or it tested nothing."""

    receipted: int = 1
    redelivered: int = 1
    reconnected: int = 1
    faults: int = 1
    faults_in_flight: int = 1
    unknown_share: float = 0.05


def check(history: History, owners: list[Owner], enough: Enough | None = None) -> list[str]:
    """What is wrong with `history`, in sentences; nothing where every promise was kept.

    `owners` are the cursors whose clients were given all the time that they need.
    """
    facts = _Facts(history)
    return [
        *_nothing_lost(facts, owners),
        *_nothing_invented(facts),
        *_order_in_subscriptions(facts),
        *_order_of_pairs(facts),
        *_one_position_a_key(facts),
        *_confirmed_stays_confirmed(facts),
        *_repeats_are_marked(facts),
        *_tested_something(facts, enough or Enough()),
    ]


class _Facts:
    """The events, by what the checks ask."""

    def __init__(self, history: History) -> None:
        self.events = history.events
        self.sent: dict[str, Sent] = {}
        self.receipted: set[str] = set()
        self.refused: set[str] = set()
        self.unsure: set[str] = set()
        self.owner: dict[str, Owner] = {}
        self.began: dict[str, int] = {}
        self.got: dict[str, list[Got]] = defaultdict(list)
        self.all: list[tuple[int, Got]] = []
        self.handles: set[str] = set()
        self.marks: set[str] = set()
        self.handled: dict[Owner, set[str]] = defaultdict(set)
        self.gone: set[str] = set()
        self.confirmed: list[tuple[int, int, Confirmed]] = []
        self.forgotten: list[range] = []
        self.lost = 0
        self.faults = 0
        self.faults_in_flight = 0
        self.shared: set[Owner] = set()
        latest: dict[Owner, str] = {}
        lagging = 0
        came: dict[tuple[str, int], int] = {}
        for at, event in enumerate(history.events):
            match event:
                case Sent():
                    self.sent.setdefault(event.key, event)
                case Receipted(key):
                    self.receipted.add(key)
                case Refused(key):
                    self.refused.add(key)
                case Unsure(key):
                    self.unsure.add(key)
                case Subscribed(subscription, owner):
                    self.owner[subscription], self.began[subscription] = owner, at
                    latest[owner] = subscription
                    if event.handles:
                        self.handles.add(subscription)
                    if event.marks:
                        self.marks.add(subscription)
                case Got():
                    owner = self.owner[event.subscription]
                    if latest[owner] != event.subscription:
                        self.shared.add(owner)  # two tabs at once: whose eyes were first is not the server's doing
                    self.got[event.subscription].append(event)
                    self.all.append((at, event))
                    came[event.subscription, event.offset] = at
                    if event.subscription not in self.handles:
                        self.handled[owner].add(event.key)
                case Handled(subscription, key):
                    self.handled[self.owner[subscription]].add(key)
                case Gone(key):
                    self.gone.add(key)
                case Lagging():
                    lagging = at
                case FailedOver():
                    self.forgotten.append(range(lagging, at))
                case Dropped(key, owner):
                    self.handled[owner].add(key)
                case Confirmed(subscription, through):
                    # The proof went out when the message had come: what is said of it later is no new one.
                    self.confirmed.append((at, came.get((subscription, through), at), event))
                case Lost():
                    self.lost += 1
                case Fault():
                    self.faults += 1
                    self.faults_in_flight += len(self.sent) > len(self.receipted) + len(self.refused)

    def may_be_forgotten(self, at: int, by: int) -> bool:
        """Whether a fail-over before `by` may have lost what the store was told at `at`."""
        return any(at in window and window.stop < by for window in self.forgotten)


def _nothing_lost(facts: _Facts, owners: list[Owner]) -> Iterator[str]:
    wanted: dict[str, set[str]] = defaultdict(set)
    for key in facts.receipted - facts.gone:
        wanted[facts.sent[key].receiver].add(key)
    for owner in owners:
        for key in sorted(wanted[owner[0]] - facts.handled[owner]):
            yield f"lost: {key} was receipted, and never came to {owner}"


def _nothing_invented(facts: _Facts) -> Iterator[str]:
    for _, got in facts.all:
        sent = facts.sent.get(got.key)
        if sent is None:
            yield f"phantom: {got.key} was never sent"
            continue
        if facts.owner[got.subscription][0] != sent.receiver:
            yield f"wrong receiver: {got.key} for {sent.receiver} came to {facts.owner[got.subscription]}"
        if got.body != sent.body:
            yield f"another body: {got.key} was sent as {sent.body!r} and came as {got.body!r}"
        if got.key in facts.refused:
            yield f"refused, and yet delivered: {got.key}"


def _order_in_subscriptions(facts: _Facts) -> Iterator[str]:
    for subscription, messages in facts.got.items():
        keys: set[str] = set()
        last: Got | None = None
        for got in messages:
            if got.key in keys and got.key not in facts.gone:
                yield f"twice: {got.key} in {subscription}"
            keys.add(got.key)
            if last is not None:
                if (got.epoch, got.offset) <= (last.epoch, last.offset):
                    yield f"position: {got.key} at {got.offset} came after {last.offset} in {subscription}"
                elif got.previous != last.offset and not got.skipped and last.key not in facts.gone:
                    yield f"gap: {got.key} follows {got.previous}, but {last.offset} came before it in {subscription}"
            last = got


def _order_of_pairs(facts: _Facts) -> Iterator[str]:
    first_seen: dict[tuple[Owner, str], int] = {}
    in_subscription: dict[tuple[str, str], int] = {}
    seen: dict[Owner, set[str]] = defaultdict(set)
    for _, got in facts.all:
        sent = facts.sent.get(got.key)
        if sent is None or got.key in facts.gone or got.key in facts.unsure:
            continue
        pair = (got.subscription, sent.sender)
        if sent.seq < in_subscription.get(pair, -1):
            yield f"order: {got.key} of {sent.sender} came late in {got.subscription}"
        in_subscription[pair] = sent.seq
        owner = facts.owner[got.subscription]
        if owner not in facts.shared and got.key not in seen[owner]:
            seen[owner].add(got.key)
            if sent.seq < first_seen.get((owner, sent.sender), -1):
                yield f"order: {got.key} of {sent.sender} was first seen late by {owner}"
            first_seen[owner, sent.sender] = sent.seq


def _one_position_a_key(facts: _Facts) -> Iterator[str]:
    position: dict[str, tuple[int, int]] = {}
    key_at: dict[tuple[str, int, int], str] = {}
    for _, got in facts.all:
        place = (got.epoch, got.offset)
        if position.setdefault(got.key, place) != place and got.key not in facts.gone:
            yield f"stored twice: {got.key} at {position[got.key]} and at {place}"
        log = (facts.owner[got.subscription][0], *place)
        if key_at.setdefault(log, got.key) != got.key:
            yield f"a position used twice: {place} holds {key_at[log]} and {got.key}"


def _confirmed_stays_confirmed(facts: _Facts) -> Iterator[str]:
    for subscription, messages in facts.got.items():
        owner, began = facts.owner[subscription], facts.began[subscription]
        confirms = [
            c
            for at, proven, c in facts.confirmed
            if at < began and facts.owner[c.subscription] == owner and not facts.may_be_forgotten(proven, began)
        ]
        stands = max(((c.epoch, c.through) for c in confirms), default=(0, 0))
        for got in messages:
            if (got.epoch if stands[0] else 0, got.offset) <= stands:
                yield f"confirmed, and yet again: {got.key} at {got.offset} in {subscription}; {stands[1]} stood"


def _repeats_are_marked(facts: _Facts) -> Iterator[str]:
    first: dict[tuple[Owner, str], int] = {}
    for at, got in facts.all:
        seen = first.setdefault((facts.owner[got.subscription], got.key), at)
        began = facts.began[got.subscription]
        known = got.subscription in facts.marks and got.key not in facts.gone and not facts.may_be_forgotten(seen, at)
        if known and seen < began and not got.redelivered:
            yield f"not marked: {got.key} came again in {got.subscription} without redelivered"


def _tested_something(facts: _Facts, enough: Enough) -> Iterator[str]:
    redelivered = sum(got.redelivered for _, got in facts.all)
    for name, found, wanted in (
        ("receipts", len(facts.receipted), enough.receipted),
        ("redeliveries", redelivered, enough.redelivered),
        ("reconnections", facts.lost, enough.reconnected),
        ("faults", facts.faults, enough.faults),
        ("faults while something was in flight", facts.faults_in_flight, enough.faults_in_flight),
    ):
        if found < wanted:
            yield f"tested nothing: {found} {name}, wanted {wanted}"
    unknown = len(facts.sent) - len(facts.receipted) - len(facts.refused)
    if unknown > enough.unknown_share * len(facts.sent):
        yield f"tested nothing: the outcome of {unknown} of {len(facts.sent)} is unknown"
