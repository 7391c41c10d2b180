"""One timer for all deadlines: each looked at once, not early, and forgotten when discarded."""

from postroom.wheel import TICK_SECONDS, Wheel


class HandClock:
    """A clock turned by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


class Entry:
    """Something with deadlines."""

    def __init__(self, again: float | None = None) -> None:
        self.slot = 0
        self.seen: list[float] = []
        self._again = again

    def check(self, now: float) -> float | None:
        self.seen.append(now)
        return now + self._again if self._again is not None else None


def turn(wheel: Wheel, clock: HandClock, seconds: float) -> None:
    until = clock.now + seconds
    while clock.now < until:
        clock.now += TICK_SECONDS
        wheel.turn()


def test_an_entry_is_looked_at_once_and_not_early() -> None:
    clock = HandClock()
    wheel, entry = Wheel(clock), Entry()
    wheel.add(entry, clock.now + 5)
    turn(wheel, clock, 4.75)
    assert entry.seen == []
    turn(wheel, clock, 1)
    assert len(entry.seen) == 1
    assert 105 <= entry.seen[0] <= 105 + 2 * TICK_SECONDS


def test_an_entry_that_asks_for_it_is_looked_at_again() -> None:
    clock = HandClock()
    wheel, entry = Wheel(clock), Entry(again=1)
    wheel.add(entry, clock.now)
    turn(wheel, clock, 6)
    assert 4 <= len(entry.seen) <= 6


def test_a_discarded_entry_is_left_alone() -> None:
    clock = HandClock()
    wheel, entry = Wheel(clock), Entry()
    wheel.add(entry, clock.now + 1)
    wheel.discard(entry)
    turn(wheel, clock, 3)
    assert entry.seen == []


def test_adding_again_moves_the_deadline() -> None:
    clock = HandClock()
    wheel, entry = Wheel(clock), Entry()
    wheel.add(entry, clock.now + 1)
    wheel.add(entry, clock.now + 4)
    turn(wheel, clock, 3)
    assert entry.seen == []
    turn(wheel, clock, 2)
    assert len(entry.seen) == 1


def test_one_that_fails_does_not_keep_the_others_waiting() -> None:
    class Broken(Entry):
        def check(self, now: float) -> float | None:
            raise RuntimeError

    clock = HandClock()
    wheel, entry = Wheel(clock), Entry()
    wheel.add(Broken(), clock.now + 1)
    wheel.add(entry, clock.now + 1)
    turn(wheel, clock, 2)
    assert len(entry.seen) == 1
