"""However bytes are cut, the same frames come out; what is no frame is named."""

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.errors import LimitExceeded, MalformedFrame, ProtocolViolation
from postroom.stomp import Decoder, Frame, Limits, Version, encode_frame, encode_message, message_start

VERSIONS: tuple[Version, ...] = ("1.0", "1.1", "1.2")
LIMITS = Limits(max_headers=8, max_header_bytes=200, max_body_bytes=1000)


def decode(*parts: bytes, version: Version = "1.2", missing_nul: bool = False) -> list[Frame | ProtocolViolation]:
    decoder = Decoder(LIMITS, append_missing_nul=missing_nul)
    decoder.version = version
    return [frame for part in parts for frame in decoder.feed(part)]


def violation(*parts: bytes, version: Version = "1.2") -> ProtocolViolation:
    last = decode(*parts, version=version)[-1]
    assert isinstance(last, ProtocolViolation)
    return last


names = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=10).filter(
    lambda name: name not in ("content-length",)
)
values = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=10)
frames = st.builds(
    Frame,
    st.sampled_from(["SEND", "MESSAGE"]),
    st.dictionaries(names, values, max_size=5),
    st.binary(max_size=40),
)


@given(
    st.lists(frames, max_size=5), st.lists(st.integers(0, 400), max_size=12), st.sampled_from([b"", b"\n", b"\r\n\n"])
)
def test_any_split_of_any_frames_decodes_the_same(sent: list[Frame], cuts: list[int], beats: bytes) -> None:
    wire = beats + b"".join(encode_frame("1.2", f.command, f.headers, f.body) + beats for f in sent)
    at = [0, *sorted(cut % (len(wire) + 1) for cut in cuts), len(wire)]
    got = decode(*(wire[start:end] for start, end in itertools.pairwise(at)))
    for frame in got:
        assert isinstance(frame, Frame)
        frame.headers.pop("content-length", None)
    assert got == sent


@given(st.binary(max_size=80))
def test_garbage_is_refused_and_nothing_else_is_raised(garbage: bytes) -> None:
    for item in decode(b"SEND\n", garbage, b"\x00", garbage):
        assert isinstance(item, Frame | ProtocolViolation)


@pytest.mark.parametrize("version", ["1.1", "1.2"])
def test_what_is_escaped_comes_back(version: Version) -> None:
    headers = {"a:b": "c:d\\e\nf"}
    (frame,) = decode(encode_frame(version, "SEND", headers), version=version)
    assert isinstance(frame, Frame)
    assert frame.headers == headers


def test_line_ends_may_be_cr_lf() -> None:
    (frame,) = decode(b"SEND\r\ndestination:/queue/a\r\nx: y\r\n\r\nbody\x00")
    assert frame == Frame("SEND", {"destination": "/queue/a", "x": " y"}, b"body")


def test_of_repeated_headers_the_first_counts() -> None:
    (frame,) = decode(b"SEND\nfoo:World\nfoo:Hello\n\n\x00")
    assert isinstance(frame, Frame)
    assert frame.headers == {"foo": "World"}


def test_a_body_of_announced_length_may_hold_nul() -> None:
    (frame,) = decode(b"SEND\ncontent-length:5\n\na\x00b\x00c\x00")
    assert isinstance(frame, Frame)
    assert frame.body == b"a\x00b\x00c"


def test_heart_beats_are_counted_and_are_no_frames() -> None:
    decoder = Decoder(LIMITS)
    assert decoder.feed(b"\n\r\n\n") == []
    assert decoder.heartbeats == 3


def test_a_missing_nul_is_added_where_a_client_leaves_it_out() -> None:
    whole = Frame("SEND", {"destination": "/queue/a"}, b"hello")
    assert decode(b"SEND\ndestination:/queue/a\n\nhello", missing_nul=True) == [whole]
    assert decode(b"SEND\ndestination:/queue/a\n\nhello") == []


@pytest.mark.parametrize(
    ("wire", "kind"),
    [
        (b"SEND\nno colon\n\n\x00", MalformedFrame),
        (b"SEND\na:\\t\n\n\x00", MalformedFrame),
        (b"SEND\na:x\\\n\n\x00", MalformedFrame),
        (b"SEND\na:\xff\n\n\x00", MalformedFrame),
        (b"SEND\na:b\x00", MalformedFrame),
        (b"SEND\ncontent-length:x\n\n\x00", MalformedFrame),
        (b"SEND\ncontent-length:-1\n\n\x00", MalformedFrame),
        (b"SEND\ncontent-length:1\n\nab\x00", MalformedFrame),
        (b"SEND\ncontent-length:1001\n\n", LimitExceeded),
        (b"SEND\ncontent-length:99999999999999999999999\n\n", LimitExceeded),
        (b"SEND\n\n" + b"x" * 1001, LimitExceeded),
        (b"SEND\n" + b"a:b\n" * 9 + b"\n\x00", LimitExceeded),
        (b"SEND\na:" + b"x" * 300 + b"\n\n\x00", LimitExceeded),
        (b"SEND\na:" + b"x" * 300, LimitExceeded),
        (b"SEND\ncontent-length:" + b"9" * 100 + b"\n\n\x00", LimitExceeded),
        (b"G" * 100, MalformedFrame),
        (b"G" * 100 + b"\n\n\x00", MalformedFrame),
        (b"SE\x00ND\n\n\x00", MalformedFrame),
    ],
)
def test_what_is_no_frame_is_named(wire: bytes, kind: type[ProtocolViolation]) -> None:
    for parts in ((wire,), tuple(wire[at : at + 1] for at in range(len(wire)))):
        assert type(violation(*parts)) is kind


def test_frames_before_a_bad_one_still_count() -> None:
    first, second = decode(b"SEND\ndestination:/queue/a\n\n\x00SEND\nbad\n\n\x00")
    assert isinstance(first, Frame)
    assert isinstance(second, MalformedFrame)


def test_many_small_pieces_take_linear_time() -> None:
    def seconds(size: int) -> float:
        decoder = Decoder(Limits())
        started = time.thread_time()
        decoder.feed(b"SEND\ndestination:/queue/a\n\n")
        for _ in range(size):
            decoder.feed(b"x")
        assert len(decoder.feed(b"\x00")) == 1
        return time.thread_time() - started

    seconds(1000)
    assert seconds(160_000) < 60 * seconds(10_000)


def test_many_frames_in_one_piece_take_linear_time() -> None:
    def seconds(count: int, end: bytes) -> float:
        wire = b"SEND\ndestination:/queue/a\n\nhello\x00".replace(b"\n", end) * count
        started = time.thread_time()
        assert len(Decoder(Limits()).feed(wire)) == count
        return time.thread_time() - started

    for end in (b"\n", b"\r\n"):
        seconds(100, end)
        assert seconds(16_000, end) < 60 * seconds(1000, end)


def test_the_version_may_change_between_two_frames_of_one_piece() -> None:
    decoder = Decoder(LIMITS)
    frames = decoder.frames(b"CONNECT\n\n\x00SEND\n a : b\\d \n\n\x00")
    assert next(frames) == Frame("CONNECT", {}, b"")
    decoder.version = "1.0"
    assert list(frames) == [Frame("SEND", {"a": "b\\d"}, b"")]


def test_the_limit_of_a_header_counts_bytes_however_they_are_cut() -> None:
    fits, over = ("SEND\na:" + "é" * count + "\n\n\x00" for count in (99, 100))
    for wire, kind in ((fits.encode(), Frame), (over.encode(), LimitExceeded)):
        for parts in ((wire,), tuple(wire[at : at + 1] for at in range(len(wire)))):
            assert [type(item) for item in decode(*parts)] == [kind]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_head_may_be_just_as_large_as_the_limits_say(end: bytes) -> None:
    limits = Limits(max_headers=2, max_header_bytes=10, max_body_bytes=10)
    wire = end.join([b"SEND", b"a:" + b"x" * 8, b"b:" + b"y" * 8, b"", b"\x00"])
    for parts in ((wire,), tuple(wire[at : at + 1] for at in range(len(wire)))):
        decoder = Decoder(limits)
        (frame,) = [frame for part in parts for frame in decoder.feed(part)]
        assert frame == Frame("SEND", {"a": "x" * 8, "b": "y" * 8}, b"")


@given(st.lists(frames, min_size=1, max_size=3), st.sampled_from([b"", b"\n"]), st.sampled_from(VERSIONS))
def test_the_quick_way_gives_what_the_thorough_one_gives(sent: list[Frame], eol: bytes, version: Version) -> None:
    quick = Decoder(LIMITS)
    quick.version = version
    for frame in (*sent, *sent):
        wire = encode_frame(version, frame.command, frame.headers, frame.body) + eol
        whole = quick.whole(wire)
        if whole is not None:
            assert decode(wire, version=version) == [whole]


def test_an_end_of_line_behind_a_frame_is_a_heart_beat_for_the_quick_way_too() -> None:
    decoder = Decoder(LIMITS)
    assert decoder.whole(b"SEND\ndestination:/queue/a\n\nhi\x00\n") == Frame("SEND", {"destination": "/queue/a"}, b"hi")
    assert decoder.heartbeats == 1
    assert decoder.whole(b"\n") is None
    assert decoder.whole(b"SEND\n\nhi\n") is None
    assert decoder.heartbeats == 1


def test_a_message_names_its_length_and_escapes_what_it_must() -> None:
    wire = encode_message("1.2", message_start("1.2", "s:1", "/topic/a"), "m-1", {"x": "a\nb"}, b"\x00", "m-1@s:1")
    assert wire == (
        b"MESSAGE\nsubscription:s\\c1\ndestination:/topic/a\nmessage-id:m-1\nack:m-1@s\\c1\nx:a\\nb\n"
        b"content-length:1\n\n\x00\x00"
    )


def test_stomp_1_0_knows_no_escapes() -> None:
    assert encode_frame("1.0", "MESSAGE", {"a": "b:c\nd"}) == b"MESSAGE\na:b:c d\n\n\x00"
    (frame,) = decode(b"SEND\n a : b\\n \n\n\x00", version="1.0")
    assert isinstance(frame, Frame)
    assert frame.headers == {"a": "b\\n"}
