"""Whatever is lost, repeated or reordered, what comes out is the log."""

from hypothesis import given
from hypothesis import strategies as st

from postroom.delivery.tail import Deliver, Fetch, Tail
from postroom.destination import UserQueue
from postroom.identity import UserName
from postroom.message import Message, StoredMessage
from postroom.position import START, Epoch, Head, Position

EPOCH = Epoch(1)
MESSAGE = Message(UserQueue(UserName("bob"), "/queue/inbox"), None, {}, b"")


class Log:
    """A log in memory, with holes between its offsets."""

    def __init__(self) -> None:
        self.epoch = EPOCH
        self.entries: list[StoredMessage] = []
        self.last, self.number, self.floor, self.floor_number = 0, 0, 0, 0

    def append(self, step: int = 1) -> StoredMessage:
        self.number += 1
        offset = self.last + step
        stored = StoredMessage(MESSAGE, Position(self.epoch, offset), self.last, self.number, True)
        self.last = offset
        self.entries.append(stored)
        return stored

    def fail_over(self, lost: int) -> None:
        """The last `lost` messages are gone, and the new primary's clock is behind."""
        del self.entries[len(self.entries) - lost :]
        self.last = self.entries[-1].position.offset if self.entries else 0
        self.number -= lost
        self.epoch = Epoch(self.epoch + 1)

    def trim(self, count: int) -> None:
        for stored in self.entries[:count]:
            self.floor, self.floor_number = stored.position.offset, stored.number
        del self.entries[:count]

    @property
    def head(self) -> Head:
        last = Position(self.entries[-1].position.epoch if self.entries else self.epoch, self.last)
        last = last if self.number else START
        return Head(last, self.number, self.floor, self.floor_number)

    def read(self, after: Position, limit: int) -> list[StoredMessage]:
        return [stored for stored in self.entries if stored.position > after][:limit]


def drain(tail: Tail, log: Log, limit: int = 3) -> list[tuple[StoredMessage, int]]:
    """Answer fetches until the tail has caught up."""
    out: list[tuple[StoredMessage, int]] = []
    while True:
        out += tail.page(log.read(tail.sent, limit), log.head)
        if tail.sent >= log.head.last and tail.settle() is None:
            return out


def started(log: Log) -> Tail:
    tail = Tail()
    tail.begin(START, 0)
    drain(tail, log)
    return tail


def test_the_next_message_is_delivered_without_a_look_into_the_log() -> None:
    log = Log()
    tail = started(log)
    first, second = log.append(5), log.append(7)
    assert tail.announce(first, ready=True) == Deliver(first)
    assert tail.announce(second, ready=True) == Deliver(second)


def test_a_gap_is_read_from_the_log() -> None:
    log = Log()
    tail = started(log)
    first = log.append()
    log.append()
    third = log.append()
    assert tail.announce(first, ready=True) == Deliver(first)
    assert tail.announce(third, ready=True) == Fetch(first.position)
    assert [stored.number for stored, _ in drain(tail, log)] == [2, 3]


def test_what_was_sent_is_dropped() -> None:
    log = Log()
    tail = started(log)
    first = log.append()
    tail.announce(first, ready=True)
    assert tail.announce(first, ready=True) is None


def test_without_room_nothing_is_sent_until_it_is_asked_for() -> None:
    log = Log()
    tail = started(log)
    first = log.append()
    assert tail.announce(first, ready=False) == Fetch(START)
    tail.pause()
    assert tail.behind
    assert tail.resume() == Fetch(START)
    assert [stored for stored, _ in drain(tail, log)] == [first]


def test_what_trimming_took_is_counted_as_skipped() -> None:
    log = Log()
    for _ in range(5):
        log.append()
    log.trim(3)
    tail = Tail()
    tail.begin(START, 0)
    assert [(stored.number, skipped) for stored, skipped in drain(tail, log)] == [(4, 3), (5, 0)]


def test_trimmed_after_confirmation_is_not_skipped() -> None:
    log = Log()
    for _ in range(5):
        log.append()
    cursor = log.entries[2]
    log.trim(3)
    tail = Tail()
    tail.begin(cursor.position, cursor.number)
    assert [(stored.number, skipped) for stored, skipped in drain(tail, log)] == [(4, 0), (5, 0)]


def test_another_epoch_is_read_from_the_log() -> None:
    log = Log()
    tail = started(log)
    first = log.append()
    tail.announce(first, ready=True)
    later = StoredMessage(MESSAGE, Position(Epoch(2), 9), first.position.offset, 2, True)
    assert tail.announce(later, ready=True) == Fetch(first.position)


def test_after_a_fail_over_that_lost_what_was_sent_later_messages_still_come() -> None:
    log = Log()
    tail = started(log)
    for _ in range(5):
        tail.announce(log.append(10), ready=True)
    log.fail_over(lost=3)
    assert tail.notice(log.head) is None  # what was sent lies above what is left
    later = log.append(1)
    assert later.position.offset < tail.sent.offset
    assert tail.announce(later, ready=True) == Fetch(tail.sent)
    assert [stored for stored, _ in drain(tail, log)] == [later]
    assert tail.announce(next_one := log.append(), ready=True) == Deliver(next_one)


def test_what_was_announced_and_lost_is_not_waited_for() -> None:
    log = Log()
    tail = started(log)
    first = log.append()
    lost = log.append()
    tail.announce(first, ready=True)
    assert tail.announce(lost, ready=False) == Fetch(first.position)
    tail.pause()
    log.fail_over(lost=1)
    assert tail.resume() == Fetch(first.position)
    assert drain(tail, log) == []
    assert not tail.behind


def test_what_is_announced_while_a_page_is_sent_is_read_afterwards() -> None:
    log = Log()
    old = [log.append() for _ in range(3)]
    tail = Tail()
    tail.begin(START, 0)
    head = log.head
    late = log.append()
    assert tail.announce(late, ready=True) is None
    for stored in old:  # as the mailbox does: one by one, for as long as there is room
        tail.page([stored], head)
    assert tail.settle() == Fetch(old[-1].position)
    assert [stored for stored, _ in drain(tail, log)] == [late]


@st.composite
def fates(draw: st.DrawFn) -> list[tuple[int, str]]:
    """For each message: the step to its offset, and what becomes of its announcement."""
    fate = st.sampled_from(["told", "lost", "twice", "late", "no room"])
    return draw(st.lists(st.tuples(st.integers(1, 9), fate), max_size=40))


@given(fates(), st.integers(1, 5))
def test_what_comes_out_is_the_log(story: list[tuple[int, str]], limit: int) -> None:
    log, got = Log(), []
    tail = started(log)
    late: list[StoredMessage] = []

    def hear(stored: StoredMessage, *, ready: bool = True) -> None:
        match tail.announce(stored, ready=ready):
            case Deliver(message):
                got.append(message)
            case Fetch():
                got.extend(stored for stored, _ in drain(tail, log, limit))
            case None:
                pass

    for step, fate in story:
        stored = log.append(step)
        if fate == "late":
            late.append(stored)
        elif fate != "lost":
            hear(stored, ready=fate != "no room")
            if fate == "twice":
                hear(stored)
    for stored in late:
        hear(stored)
    if tail.notice(log.head) is not None:
        got.extend(stored for stored, _ in drain(tail, log, limit))
    assert [stored.number for stored in got] == [*range(1, len(story) + 1)]
