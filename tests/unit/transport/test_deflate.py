"""permessage-deflate without a socket: what is agreed to, what comes out, what is refused."""

import os
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.transport import websocket
from postroom.transport.deflate import RSV1, Agreed, Compression, deflate, frame, framing, inflate, negotiate
from postroom.transport.websocket import Fault

BASE = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"


def response(offers: str) -> str | None:
    agreed = negotiate(offers, Compression(window_bits=12))
    return agreed.response if isinstance(agreed, Agreed) else None


@pytest.mark.parametrize(
    ("offers", "answer"),
    [
        ("permessage-deflate", BASE),
        ("Permessage-Deflate", BASE),
        ("permessage-deflate; client_max_window_bits", f"{BASE}; client_max_window_bits=12"),
        ("permessage-deflate; client_max_window_bits=10", f"{BASE}; client_max_window_bits=10"),
        ('permessage-deflate; client_max_window_bits="15"', f"{BASE}; client_max_window_bits=12"),
        ("permessage-deflate; server_max_window_bits=10", f"{BASE}; server_max_window_bits=10"),
        ("permessage-deflate; server_max_window_bits=15", f"{BASE}; server_max_window_bits=12"),
        ("permessage-deflate; server_no_context_takeover; client_no_context_takeover", BASE),
        # zlib has no raw window of 8 bits: the next offer is looked at.
        ("permessage-deflate; server_max_window_bits=8, permessage-deflate", BASE),
        ("permessage-deflate; server_max_window_bits=8", None),
        ("x-webkit-deflate-frame, permessage-deflate", BASE),
        ("x-webkit-deflate-frame", None),
        ('other; a="x, permessage-deflate"', None),
        ("permessage-deflate; client_max_window_bits=08", None),
        ("permessage-deflate; client_max_window_bits=16", None),
        ("permessage-deflate; client_max_window_bits=7", None),
        ("permessage-deflate; server_max_window_bits", None),
        ("permessage-deflate; server_no_context_takeover=1", None),
        ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", None),
        ("permessage-deflate; unknown", None),
        ("permessage-deflate; =", None),
        ("", None),
        (",;,", None),
    ],
)
def test_what_is_agreed_to(offers: str, answer: str | None) -> None:
    assert response(offers) == answer


@given(st.text(max_size=80))
def test_any_offer_is_answered_or_passed_over(offers: str) -> None:
    response(f"permessage-deflate; {offers}")


@given(st.binary(max_size=5000), st.integers(9, 15), st.integers(1, 9))
def test_what_is_compressed_comes_out_again(payload: bytes, bits: int, level: int) -> None:
    assert inflate(deflate(payload, Compression(window_bits=bits, level=level)), 5000) == payload


def test_the_example_of_section_7_2_3_1() -> None:
    assert inflate(bytes.fromhex("f248cdc9c90700"), 100) == b"Hello"


def test_a_stream_that_ends_within_the_message_section_7_2_3_4() -> None:
    assert inflate(bytes.fromhex("f348cdc9c9070000"), 100) == b"Hello"


def test_two_blocks_in_one_message_section_7_2_3_5() -> None:
    assert inflate(bytes.fromhex("f248050000 00ffffcac9c90700".replace(" ", "")), 100) == b"Hello"


def test_a_block_without_compression_section_7_2_3_3() -> None:
    assert inflate(bytes.fromhex("000500faff48656c6c6f00"), 100) == b"Hello"


def test_a_bomb_is_not_unpacked() -> None:
    bomb = deflate(bytes(50_000_000), Compression(window_bits=15, level=9))
    with pytest.raises(Fault) as refused:
        inflate(bomb, 1_000_000)
    assert refused.value.code == websocket.TOO_BIG
    assert len(inflate(deflate(bytes(1_000_000), Compression()), 1_000_000)) == 1_000_000


@pytest.mark.parametrize("payload", [b"\xff\xff\xff", os.urandom(7) + b"\xff" * 9, b"\x03\x00" * 1000])
def test_what_is_no_compressed_message_is_refused(payload: bytes) -> None:
    with pytest.raises(Fault) as refused:
        inflate(b"\xff" + payload if payload[0] != 3 else payload, 1000)
    assert refused.value.code == websocket.NOT_UTF8


def test_equal_terms_share_one_framing() -> None:
    # So that a fan-out is compressed once for all who agreed to the same.
    assert framing(Compression(window_bits=11)) is framing(Compression(window_bits=11))
    assert framing(Compression(window_bits=11)) is not framing(Compression(window_bits=12))


def test_small_and_random_messages_travel_as_they_are() -> None:
    terms = Compression(min_bytes=100)
    small, noise = b"a" * 99, os.urandom(500)
    assert framing(terms)(small) == websocket.message(small)
    assert framing(terms)(noise) == websocket.frame(websocket.BINARY, noise)


def test_the_window_that_was_agreed_on_is_kept() -> None:
    block = os.urandom(3000)
    made = frame(websocket.BINARY, block + b"x" * 2000 + block, Compression(window_bits=10, min_bytes=1))
    assert made[0] == 0x80 | 0x40 | websocket.BINARY
    inflater = zlib.decompressobj(-10)
    assert inflater.decompress(made[4:] + b"\x00\x00\xff\xff") == block + b"x" * 2000 + block


@pytest.mark.parametrize("payload", [b"", b"x", bytes(range(256))])
def test_everything_is_compressed_where_that_is_wanted(payload: bytes) -> None:
    made = frame(websocket.BINARY, payload, Compression(min_bytes=0))
    assert made[0] == 0x80 | RSV1 | websocket.BINARY
    start = 2 if made[1] < 126 else 4
    assert inflate(made[start:], 1000) == payload
