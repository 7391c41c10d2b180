"""Versions and heart-beats, as both sides offered them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.errors import MalformedFrame
from postroom.stomp import SUBPROTOCOLS, VERSIONS
from postroom.stomp.negotiation import choose_version, heart_beat

intervals = st.integers(0, 999_999_999)


def test_sub_protocols_are_offered_in_the_order_of_the_versions() -> None:
    assert tuple(f"v{version.replace('.', '')}.stomp" for version in VERSIONS) == SUBPROTOCOLS


@pytest.mark.parametrize(
    ("accepted", "version"), [(None, "1.0"), ("", None), ("2.0", None), ("1.10", None), (" 1.1 ,9", "1.1")]
)
def test_the_highest_common_version_or_none(accepted: str | None, version: str | None) -> None:
    assert choose_version(accepted) == version


@given(intervals, intervals, intervals, intervals)
def test_each_direction_takes_the_slower_side_or_none(cx: int, cy: int, sx: int, sy: int) -> None:
    outgoing, incoming = heart_beat(f"{cx},{cy}", (sx, sy), "1.2")
    assert outgoing == (max(sx, cy) if sx and cy else 0)
    assert incoming == (max(sy, cx) if sy and cx else 0)


def test_1_0_has_none_whatever_it_says() -> None:
    assert heart_beat("1000,1000", (10, 10), "1.0") == (0, 0)
    assert heart_beat("nonsense", (10, 10), "1.0") == (0, 0)


@pytest.mark.parametrize("text", ["", "1", "1,", ",1", "1,2,3", "-1,0", "1.5,0", "a,b", "²,1", "9" * 5000 + ",0"])
def test_what_is_no_pair_of_numbers_is_refused(text: str) -> None:
    with pytest.raises(MalformedFrame, match="heart-beat"):
        heart_beat(text, (10, 10), "1.2")
