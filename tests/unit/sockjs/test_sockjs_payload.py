import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.sockjs import framing, payload


@given(st.lists(st.text()))
def test_any_messages_survive_both_ways(texts: list[str]) -> None:
    sent = payload.messages(json.dumps(texts).encode())
    assert sent == [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode() for text in texts]
    if sent:
        frame = framing.array_of(b"".join(map(framing.element, sent)))
        assert json.loads(frame[1:]) == [text.decode() for text in sent]


@given(st.binary())
def test_any_bytes_are_messages_or_refused(body: bytes) -> None:
    for read in (payload.messages, payload.websocket_messages, lambda data: payload.form_messages(data, _FORM)):
        try:
            assert all(isinstance(message, bytes) for message in read(body))
        except payload.BadPayload as error:
            assert str(error) in ("Payload expected.", "Broken JSON encoding.")


_FORM = "application/x-www-form-urlencoded; charset=UTF-8"


@pytest.mark.parametrize("body", [b"[" * 100_000, b"[1" + b"0" * 5000 + b"]", b'["\x80"]', b'"\xff"'])
def test_hostile_json_is_refused(body: bytes) -> None:
    with pytest.raises(payload.BadPayload):
        payload.messages(body)


def test_a_form_holds_json_in_d() -> None:
    assert payload.form_messages(b"d=%5B%22%C3%A9%22%5D&x=y", _FORM) == ["é".encode()]
    assert payload.form_messages(b'["d=1"]', "text/plain") == [b"d=1"]


def test_a_frame_in_a_page_cannot_end_its_script() -> None:
    quoted = framing.quoted(framing.array("</script>"))
    assert b"<" not in quoted
    assert json.loads(json.loads(quoted)[1:]) == ["</script>"]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"plain", "plain"),
        ("é世".encode(), "é世"),
        (b"\xff\xfea", "??a"),
        ("世".encode()[:2] + b"!", "??!"),
        (b"\x80", "?"),
    ],
)
def test_what_is_not_utf_8_is_marked_byte_for_byte(data: bytes, text: str) -> None:
    assert framing.text_of(data) == text
    assert len(text.encode()) == len(data)
    assert json.loads(framing.array_of(framing.element(data))[1:]) == [text]
