"""Receipts leave in the order of the frames that asked for them."""

from postroom.session import Receipts


class Wire:
    """Remembers what left."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def __call__(self, receipt: str, headers: dict[str, str] | None) -> None:
        self.sent.append(receipt)


def test_a_receipt_waits_for_those_before_it() -> None:
    wire = Wire()
    line = Receipts(wire)
    first, second = line.hold("1"), line.hold("2")
    line.give("3")
    second.settle()
    assert wire.sent == []
    first.settle()
    assert wire.sent == ["1", "2", "3"]
    assert len(line) == 0


def test_what_is_refused_gets_no_receipt_and_holds_nobody_up() -> None:
    wire = Wire()
    line = Receipts(wire)
    first, second = line.hold("1"), line.hold("2")
    second.settle()
    first.refuse()
    assert wire.sent == ["2"]


def test_a_frame_without_receipt_still_holds_up_the_next_ones() -> None:
    wire = Wire()
    line = Receipts(wire)
    stored = line.hold(None)
    line.give("bye")
    assert wire.sent == []
    stored.settle()
    assert wire.sent == ["bye"]


def test_what_comes_then_comes_after_the_receipt() -> None:
    wire = Wire()
    line = Receipts(wire)
    first, last = line.hold("1"), line.hold("2")
    last.then = lambda: wire.sent.append("closed")
    last.settle()
    first.settle()
    assert wire.sent == ["1", "2", "closed"]


def test_what_waits_is_counted_and_measured_until_it_leaves() -> None:
    line = Receipts(Wire())
    tickets = [line.hold(None, 100) for _ in range(3)]
    assert line.exceed(2, 300)
    assert line.exceed(3, 299)
    assert not line.exceed(3, 300)
    tickets[1].settle()
    assert line.exceed(2, 299)  # behind one that waits
    tickets[0].refuse()
    assert not line.exceed(1, 100)
    tickets[2].settle()
    assert not line.exceed(0, 0)
