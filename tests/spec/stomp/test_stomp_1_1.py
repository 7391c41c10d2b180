"""STOMP 1.1: what differs from 1.2, one test a normative sentence; the section opens each name."""

import pytest

from postroom.stomp import (
    Ack,
    Connect,
    Connection,
    Event,
    Limits,
    Nack,
    Send,
    Subscribe,
    Unsubscribe,
    Violation,
    encode_frame,
    encode_message,
    message_start,
)


def connection(headers: str = "") -> Connection:
    made = Connection(limits=Limits())
    (event,) = made.receive(f"CONNECT\naccept-version:1.0,1.1\nhost:x\n{headers}\n\x00".encode())
    assert isinstance(event, Connect)
    return made


def one(wire: bytes) -> Event:
    (event,) = connection().receive(wire)
    return event


def summary(wire: bytes) -> str:
    event = one(wire)
    assert isinstance(event, Violation)
    return event.summary


@pytest.mark.parametrize(("wire", "text"), [(b"\\n", "\n"), (b"\\c", ":"), (b"\\\\", "\\")])
def test_value_encoding_the_three_transformations_must_be_applied_both_ways(wire: bytes, text: str) -> None:
    assert one(b"SEND\ndestination:/queue/a\nx:" + wire + b"\n\n\x00") == Send("/queue/a", {"x": text}, b"")
    assert encode_frame("1.1", "RECEIPT", {"receipt-id": text}) == b"RECEIPT\nreceipt-id:" + wire + b"\n\n\x00"


@pytest.mark.parametrize("sequence", [b"\\r", b"\\t", b"\\"])
def test_value_encoding_undefined_sequences_such_as_r_must_be_a_fatal_error(sequence: bytes) -> None:
    assert "escape" in summary(b"SEND\ndestination:/queue/a\nx:" + sequence + b"\n\n\x00")


def test_value_encoding_a_cr_that_cannot_be_escaped_breaks_no_line() -> None:
    assert encode_frame("1.1", "RECEIPT", {"receipt-id": "a\r\nb"}) == b"RECEIPT\nreceipt-id:a \\nb\n\n\x00"


def test_value_encoding_connect_is_not_escaped() -> None:
    (event,) = Connection(limits=Limits()).receive(b"CONNECT\naccept-version:1.1\nlogin:a\\n\n\n\x00")
    assert isinstance(event, Connect)
    assert event.login == "a\\n"


def test_value_encoding_headers_must_never_be_trimmed() -> None:
    assert one(b"SEND\ndestination:/queue/a\nx: y \n\n\x00") == Send("/queue/a", {"x": " y "}, b"")


def test_frames_cr_lf_is_read_though_only_1_2_demands_it() -> None:
    assert one(b"SEND\r\ndestination:/queue/a\r\n\r\nhi\x00") == Send("/queue/a", {}, b"hi")


def test_body_frames_other_than_send_must_not_have_one() -> None:
    assert "no body" in summary(b"UNSUBSCRIBE\nid:1\n\nbody\x00")


def test_repeated_header_entries_only_the_first_should_be_used() -> None:
    event = one(b"SEND\ndestination:/queue/a\nfoo:World\nfoo:Hello\n\n\x00")
    assert event == Send("/queue/a", {"foo": "World"}, b"")


def test_connecting_servers_should_handle_stomp_as_connect() -> None:
    made = Connection(limits=Limits())
    (event,) = made.receive(b"STOMP\naccept-version:1.1\nhost:x\n\n\x00")
    assert isinstance(event, Connect)
    assert made.version == "1.1"


def test_connected_must_set_the_version_and_may_set_heart_beat_session_and_server() -> None:
    frame = connection("heart-beat:5,5\n").connected("s1", "anna")
    for header in (b"version:1.1", b"session:s1", b"server:postroom", b"heart-beat:10000,10000"):
        assert b"\n" + header + b"\n" in frame


def test_heart_beating_is_every_max_of_both_sides() -> None:
    assert connection("heart-beat:20000,30000\n").heart_beat == (30_000, 20_000)


def test_subscribe_an_id_must_be_included() -> None:
    assert "id" in summary(b"SUBSCRIBE\ndestination:/queue/a\n\n\x00")


@pytest.mark.parametrize("mode", ["auto", "client", "client-individual"])
def test_subscribe_ack_has_three_valid_values(mode: str) -> None:
    event = one(f"SUBSCRIBE\nid:0\ndestination:/a\nack:{mode}\n\n\x00".encode())
    assert isinstance(event, Subscribe)
    assert event.ack == mode


def test_unsubscribe_an_id_must_be_included() -> None:
    assert "id" in summary(b"UNSUBSCRIBE\ndestination:/a\n\n\x00")
    assert one(b"UNSUBSCRIBE\nid:0\n\n\x00") == Unsubscribe("0")


@pytest.mark.parametrize(("command", "kind"), [(b"ACK", Ack), (b"NACK", Nack)])
def test_ack_and_nack_require_message_id_and_subscription(command: bytes, kind: type[Ack] | type[Nack]) -> None:
    assert one(command + b"\nsubscription:0\nmessage-id:007\n\n\x00") == kind(None, "0", "007")
    assert "subscription" in summary(command + b"\nmessage-id:007\n\n\x00")
    assert "message-id" in summary(command + b"\nsubscription:0\n\n\x00")


def test_message_must_carry_subscription_and_has_no_ack_header() -> None:
    frame = encode_message("1.1", message_start("1.1", "0", "/queue/a"), "007", {"x": "a:b"}, b"hi", "007@0")
    assert frame == (
        b"MESSAGE\nsubscription:0\ndestination:/queue/a\nmessage-id:007\nx:a\\cb\ncontent-length:2\n\nhi\x00"
    )
