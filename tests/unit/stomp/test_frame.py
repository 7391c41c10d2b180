"""Escaping is undone exactly, and nothing that is escaped can end a line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.errors import MalformedFrame
from postroom.stomp import Version, escape, unescape

VERSIONS: tuple[Version, ...] = ("1.0", "1.1", "1.2")
texts = st.text(st.sampled_from("a\\\n\r:cnr é\x00"))


@given(texts)
def test_1_2_brings_back_every_text(text: str) -> None:
    assert unescape(escape(text, "1.2"), "1.2") == text


@given(texts)
def test_1_1_brings_back_all_but_cr(text: str) -> None:
    assert unescape(escape(text, "1.1"), "1.1") == text.replace("\r", " ")


@given(texts)
def test_1_0_leaves_all_but_line_ends(text: str) -> None:
    assert escape(text, "1.0") == text.replace("\r", " ").replace("\n", " ")
    assert unescape(text, "1.0") == text


@given(texts, st.sampled_from(VERSIONS))
def test_what_is_escaped_stays_on_its_line(text: str, version: Version) -> None:
    escaped = escape(text, version)
    assert "\n" not in escaped
    assert "\r" not in escaped
    assert version == "1.0" or ":" not in escaped


@pytest.mark.parametrize(
    ("text", "version"), [("\\r", "1.1"), ("\\t", "1.2"), ("\\", "1.1"), ("a\\", "1.2"), ("\\\n", "1.2")]
)
def test_undefined_sequences_are_named(text: str, version: Version) -> None:
    with pytest.raises(MalformedFrame, match=f"STOMP {version} has no escape sequence"):
        unescape(text, version)
