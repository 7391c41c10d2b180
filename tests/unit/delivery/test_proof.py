"""One probe at a time; its answer proves what was sent before it."""

from postroom.delivery.proof import SIGN_SECONDS, Prober, Signs


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
    assert not prober.wants_frames


def test_over_a_pipe_without_probes_a_late_frame_proves_what_was_written_before_an_earlier_one() -> None:
    signs: Signs[str] = Signs()
    assert signs.frame(now=1.0) == []
    signs.watch([("inbox", 40)], now=1.0)
    assert signs.frame(now=1.0 + SIGN_SECONDS) == [("inbox", 40)]
    assert not signs.watching
    assert signs.frame(now=2.0 + SIGN_SECONDS) == []


def test_frames_that_may_have_been_on_their_way_already_prove_nothing() -> None:
    signs: Signs[str] = Signs()
    signs.watch([("inbox", 40)], now=1.0)
    for _ in range(1000):
        assert signs.frame(now=0.9 + SIGN_SECONDS) == []
    assert signs.watching


def test_a_pipe_that_has_no_probes_is_not_waited_for() -> None:
    prober: Prober[str] = Prober()
    prober.begin([("inbox", 40)], now=1.0)
    prober.unavailable()
    assert prober.outstanding is None
    assert prober.signs is not None
