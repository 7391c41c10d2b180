"""One probe at a time; its answer proves what was sent before it."""

from postroom.delivery.proof import Prober


def test_an_answer_proves_what_the_probe_covered() -> None:
    prober: Prober[str] = Prober()
    token = prober.begin([("inbox", 40)], now=1.0)
    assert prober.answered(token) == [("inbox", 40)]
    assert prober.outstanding is None


def test_another_answer_proves_nothing() -> None:
    prober: Prober[str] = Prober()
    token = prober.begin([("inbox", 40)], now=1.0)
    assert prober.answered(b"unasked") == []
    assert prober.outstanding is not None
    assert prober.answered(token)
    assert prober.answered(token) == []


def test_handled_means_two_frames_after_the_answer() -> None:
    prober: Prober[str] = Prober()
    prober.wait_for_frames("inbox", 40, seen=7)
    assert prober.frames(8) == []
    assert prober.frames(9) == [("inbox", 40)]
    assert not prober.waits_for_frames
