"""By when a client must have done what, and what it is told once it is too late."""

import math

import pytest

from postroom.gateway.watch import Late, Watch

OPENED = 100.0


def test_connect_has_its_time_from_the_opening() -> None:
    watch = Watch(OPENED)
    assert watch.connect(OPENED + 9.9, 10.0) == OPENED + 10.0
    with pytest.raises(Late, match="no CONNECT within 10 s"):
        watch.connect(OPENED + 10.0, 10.0)


def test_credentials_end_by_the_wall_clock() -> None:
    watch = Watch(OPENED)
    assert watch.credentials(OPENED, None, 5_000.0) == math.inf
    assert watch.credentials(OPENED, 5_060.0, 5_000.0) == OPENED + 60.0
    with pytest.raises(Late, match="expired"):
        watch.credentials(OPENED, 5_000.0, 5_000.0)


def test_a_client_that_promised_heart_beats_has_three_intervals() -> None:
    watch = Watch(OPENED)
    assert watch.silence(OPENED, 10_000) == OPENED + 30.0
    watch.heard(OPENED + 25.0, 1)
    assert watch.silence(OPENED + 50.0, 10_000) == OPENED + 55.0
    watch.heard(OPENED + 54.0, 1)  # no new sign since
    with pytest.raises(Late, match="nothing heard from you for 30 s"):
        watch.silence(OPENED + 55.0, 10_000)


def test_a_client_that_promised_none_may_be_silent() -> None:
    assert Watch(OPENED).silence(OPENED + 1e6, 0) == math.inf


def test_a_heart_beat_is_due_where_nothing_was_written_since_the_last_look() -> None:
    watch = Watch(OPENED)
    assert [watch.quiet(writes) for writes in (0, 0, 3, 3, 4)] == [False, True, False, True, False]
