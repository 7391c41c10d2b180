"""The cursor moves to the end of the contiguous proven run, never further and never back."""

from hypothesis import given
from hypothesis import strategies as st

from postroom.delivery.window import Proven, Window
from postroom.destination import UserQueue
from postroom.identity import UserName
from postroom.message import Message, StoredMessage
from postroom.position import Epoch, Position


def stored(number: int, size: int = 1) -> StoredMessage:
    message = Message(UserQueue(UserName("bob"), "/queue/inbox"), None, {}, b"x" * size)
    return StoredMessage(message, Position(Epoch(1), number * 10), (number - 1) * 10, number, True)


def at(number: int) -> Proven:
    return Proven(Position(Epoch(1), number * 10), number)


def window(count: int, *, max_messages: int = 100, max_bytes: int = 1000) -> Window:
    made = Window(max_messages=max_messages, max_bytes=max_bytes)
    for number in range(1, count + 1):
        made.sent(stored(number))
    return made


def test_a_cumulative_proof_covers_all_before_it() -> None:
    assert window(5).prove(30) == at(3)


def test_nothing_new_moves_nothing() -> None:
    made = window(5)
    made.prove(30)
    assert made.prove(30) is None


def test_a_hole_holds_the_cursor_back() -> None:
    made = window(3)
    assert made.prove_one(20) is None
    assert made.prove_one(10) == at(2)
    assert made.prove_one(30) == at(3)


def test_cumulative_after_individual_swallows_the_run_behind_it() -> None:
    made = window(4)
    made.prove_one(30)
    assert made.prove(20) == at(3)


def test_what_is_not_in_flight_proves_nothing() -> None:
    assert window(2).prove_one(70) is None


def test_room_is_bounded_by_messages() -> None:
    assert window(3, max_messages=3).room == 0


def test_room_is_bounded_by_bytes_and_lets_one_large_message_through() -> None:
    made = Window(max_messages=10, max_bytes=5)
    assert made.room > 0
    made.sent(stored(1, size=50))
    assert made.room == 0
    made.prove(10)
    assert made.room > 0


@given(st.permutations(range(1, 13)))
def test_the_cursor_is_the_end_of_the_contiguous_run(order: list[int]) -> None:
    made, acknowledged, cursor = window(12), set[int](), 0
    for number in order:
        acknowledged.add(number)
        proven = made.prove_one(number * 10)
        while cursor + 1 in acknowledged:
            cursor += 1
        if proven is not None:
            assert proven == at(cursor)
        assert made.room == 100 - (12 - cursor)
