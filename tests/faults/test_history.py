"""The history checker catches each fault, planted into a history that has none."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.support.history import (
    Confirmed,
    Event,
    FailedOver,
    Fault,
    Got,
    History,
    Lagging,
    Lost,
    Owner,
    Receipted,
    Refused,
    Sent,
    Subscribed,
    check,
)

OWNERS: list[Owner] = [("ben", ""), ("ben", "phone")]


def good(seed: int) -> list[Event]:
    """Two senders, one user with a shared cursor and a device; the server is killed in the middle."""
    rng = random.Random(seed)
    events: list[Event] = [Subscribed("s1", OWNERS[0]), Subscribed("p1", OWNERS[1])]
    log: list[Got] = []
    count = {"ann": 0, "cat": 0}

    def send(receipt: bool) -> Got:
        sender = rng.choice(["ann", "cat"])
        count[sender] += 1
        key = f"{sender}-{count[sender]}"
        events.append(Sent(sender, "ben", count[sender], key, f"body of {key}"))
        previous = log[-1].offset if log else 0
        log.append(Got("", key, 1, previous + rng.randint(1, 9), previous, False, f"body of {key}"))
        if receipt:
            events.append(Receipted(key))
        return log[-1]

    def deliver(subscription: str, messages: list[Got], redelivered: bool = False) -> None:
        events.extend(replace(got, subscription=subscription, redelivered=redelivered) for got in messages)

    for _ in range(20):
        deliver("s1", [send(True)])
    confirmed = log[rng.randint(5, 15)].offset
    events.append(Confirmed("s1", confirmed))
    deliver("p1", log[:10])
    hit = send(False)
    events += [Fault("kill"), Lost("s1"), Lost("p1"), Lost("ann"), Lost("cat")]
    events += [Subscribed("s2", OWNERS[0]), Subscribed("p2", OWNERS[1])]
    events += [next(e for e in events if isinstance(e, Sent) and e.key == hit.key), Receipted(hit.key)]
    deliver("s2", [got for got in log[:-1] if got.offset > confirmed], True)
    deliver("s2", log[-1:])
    deliver("p2", log[:10], True)
    deliver("p2", log[10:])
    for _ in range(10):
        got = send(True)
        deliver("s2", [got])
        deliver("p2", [got])
    return events


def gots(events: list[Event], subscription: str) -> list[int]:
    return [at for at, event in enumerate(events) if isinstance(event, Got) and event.subscription == subscription]


def got(events: list[Event], at: int) -> Got:
    event = events[at]
    assert isinstance(event, Got)
    return event


def lose(events: list[Event], rng: random.Random) -> None:
    del events[gots(events, "p2")[-1]]


def lose_in_the_middle(events: list[Event], rng: random.Random) -> None:
    del events[rng.choice(gots(events, "p2")[12:-2])]


def invent(events: list[Event], rng: random.Random) -> None:
    at = gots(events, "s2")[-1]
    events.append(replace(got(events, at), key="nobody-1", offset=10**9))


def misdeliver(events: list[Event], rng: random.Random) -> None:
    events.insert(0, Sent("ann", "somebody else", 0, "ann-0", "secret"))
    at = gots(events, "s2")[-1]
    events.append(replace(got(events, at), key="ann-0", offset=10**9, body="secret"))


def change(events: list[Event], rng: random.Random) -> None:
    at = rng.choice(gots(events, "s1"))
    events[at] = replace(got(events, at), body="changed")


def deliver_refused(events: list[Event], rng: random.Random) -> None:
    events.append(Refused(got(events, rng.choice(gots(events, "s1"))).key))


def repeat(events: list[Event], rng: random.Random) -> None:
    at = rng.choice(gots(events, "s1"))
    events.insert(at + 1, events[at])


def swap(events: list[Event], rng: random.Random) -> None:
    places = gots(events, "s2")
    at = rng.randrange(len(places) - 1)
    one, two = places[at], places[at + 1]
    events[one], events[two] = events[two], events[one]


def store_out_of_order(events: list[Event], rng: random.Random) -> None:
    """The log itself holds a sender's messages in the wrong order: positions grow, sequence numbers do not."""
    for subscription in ("s1", "p1", "s2", "p2"):
        for at in gots(events, subscription):
            one = got(events, at)
            if one.key in ("ann-1", "ann-2"):
                other = "ann-2" if one.key == "ann-1" else "ann-1"
                events[at] = replace(one, key=other, body=f"body of {other}")


def store_twice(events: list[Event], rng: random.Random) -> None:
    last = got(events, gots(events, "s2")[-1])
    first = got(events, gots(events, "s1")[0])
    events.append(Subscribed("s3", OWNERS[0]))
    events.append(replace(first, subscription="s3", offset=last.offset + 1, previous=last.offset, redelivered=True))


def use_a_position_twice(events: list[Event], rng: random.Random) -> None:
    last = got(events, gots(events, "p2")[-1])
    events.append(Sent("dan", "ben", 1, "dan-1", "x"))
    events.append(Subscribed("p3", OWNERS[1]))
    events.append(replace(last, subscription="p3", key="dan-1", body="x"))


def forget_a_confirm(events: list[Event], rng: random.Random) -> None:
    events.append(Subscribed("s3", OWNERS[0]))
    events.append(replace(got(events, gots(events, "s1")[0]), subscription="s3", redelivered=True))


def forget_a_mark(events: list[Event], rng: random.Random) -> None:
    at = rng.choice([at for at in gots(events, "s2") if got(events, at).redelivered])
    events[at] = replace(got(events, at), redelivered=False)


def no_fault(events: list[Event], rng: random.Random) -> None:
    events[:] = [event for event in events if not isinstance(event, Fault)]


def no_reconnect(events: list[Event], rng: random.Random) -> None:
    events[:] = [event for event in events if not isinstance(event, Lost)]


def nothing_receipted(events: list[Event], rng: random.Random) -> None:
    events[:] = [event for event in events if not isinstance(event, Receipted)]


FAULTS: list[tuple[Callable[[list[Event], random.Random], None], str]] = [
    (lose, "lost:"),
    (lose_in_the_middle, "gap:"),
    (invent, "phantom:"),
    (misdeliver, "wrong receiver:"),
    (change, "another body:"),
    (deliver_refused, "refused, and yet delivered:"),
    (repeat, "twice:"),
    (swap, "position:"),
    (store_out_of_order, "order:"),
    (store_twice, "stored twice:"),
    (use_a_position_twice, "a position used twice:"),
    (forget_a_confirm, "confirmed, and yet again:"),
    (forget_a_mark, "not marked:"),
    (no_fault, "tested nothing:"),
    (no_reconnect, "tested nothing:"),
    (nothing_receipted, "tested nothing:"),
]


@pytest.mark.parametrize("seed", range(20))
def test_a_history_without_a_fault_passes(seed: int) -> None:
    assert check(History(good(seed)), OWNERS) == []


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("fault", "found"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
def test_each_fault_is_found(fault: Callable[[list[Event], random.Random], None], found: str, seed: int) -> None:
    events = good(seed)
    fault(events, random.Random(seed))
    assert any(text.startswith(found) for text in check(History(events), OWNERS))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("fault", [forget_a_confirm, forget_a_mark], ids=lambda fault: fault.__name__)
def test_a_fail_over_may_forget_what_it_was_told_while_it_lagged_and_nothing_else(
    fault: Callable[[list[Event], random.Random], None], seed: int
) -> None:
    events = good(seed)
    fault(events, random.Random(seed))
    before = next(at for at, event in enumerate(events) if isinstance(event, Got))
    after = next(at for at, event in enumerate(events) if isinstance(event, Fault))
    forgiven = [*events[:before], Lagging(), *events[before:after], FailedOver(), *events[after:]]
    assert check(History(forgiven), OWNERS) == []
    if fault is forget_a_confirm:
        confirmed = next(event for event in events if isinstance(event, Confirmed))
        assert check(History([*forgiven[:-2], confirmed, *forgiven[-2:]]), OWNERS) == []
    late = [*events[:after], Lagging(), FailedOver(), *events[after:]]
    assert check(History(late), OWNERS) == check(History(events), OWNERS) != []
