"""STOMP 1.0: what differs from its successors, one test a sentence; the section opens each name."""

import pytest

from postroom.stomp import (
    Ack,
    Commit,
    Connect,
    Connection,
    Disconnect,
    Event,
    Limits,
    Send,
    Subscribe,
    Unsubscribe,
    Violation,
    encode_frame,
    encode_message,
    message_start,
)


def connection() -> Connection:
    made = Connection(limits=Limits())
    (event,) = made.receive(b"CONNECT\nlogin: anna\npasscode: secret\n\n\x00\n")
    assert isinstance(event, Connect)
    return made


def one(wire: bytes) -> Event:
    (event,) = connection().receive(wire)
    return event


def summary(wire: bytes) -> str:
    event = one(wire)
    assert isinstance(event, Violation)
    return event.summary


def test_connect_login_and_passcode_are_read_as_the_example_writes_them() -> None:
    (event,) = Connection(limits=Limits()).receive(b"CONNECT\nlogin: anna\npasscode:secret\n\n\x00")
    assert isinstance(event, Connect)
    assert (event.login, event.passcode) == ("anna", "secret")


def test_connect_without_accept_version_is_1_0() -> None:
    assert connection().version == "1.0"


def test_connected_carries_the_session_and_no_heart_beat() -> None:
    frame = connection().connected("s1", "anna")
    assert b"\nsession:s1\n" in frame
    assert b"heart-beat" not in frame


def test_frames_headers_are_read_with_the_blanks_of_the_examples() -> None:
    assert one(b"SEND\ndestination: /queue/a \n x : y\n\nhi\x00") == Send("/queue/a", {"x": "y"}, b"hi")


def test_frames_a_backslash_is_only_a_backslash() -> None:
    assert one(b"SEND\ndestination:/queue/a\nx:\\n\\c\\t\n\n\x00") == Send("/queue/a", {"x": "\\n\\c\\t"}, b"")
    assert encode_frame("1.0", "RECEIPT", {"receipt-id": "a\\b:c"}) == b"RECEIPT\nreceipt-id:a\\b:c\n\n\x00"


def test_frames_what_cannot_be_escaped_breaks_no_line() -> None:
    frame = encode_message("1.0", message_start("1.0", "0", "/queue/a"), "1", {"x": "a\r\n\nevil:b"}, b"")
    assert b"\nx:a   evil:b\n" in frame
    assert frame.count(b"\n\n") == 1


def test_content_length_gives_the_body_where_it_holds_nul() -> None:
    event = one(b"SEND\ndestination:/queue/a\ncontent-length: 3\n\na\x00b\x00")
    assert event == Send("/queue/a", {}, b"a\x00b")


def test_send_requires_a_destination() -> None:
    assert "destination" in summary(b"SEND\n\nhi\x00")


def test_subscribe_without_an_id_is_known_by_its_destination() -> None:
    event = one(b"SUBSCRIBE\ndestination: /queue/foo\nack: client\n\n\x00")
    assert isinstance(event, Subscribe)
    assert (event.id, event.destination, event.ack, event.anonymous) == ("/queue/foo", "/queue/foo", "client", True)


def test_subscribe_may_carry_an_id() -> None:
    event = one(b"SUBSCRIBE\nid:7\ndestination:/queue/foo\n\n\x00")
    assert isinstance(event, Subscribe)
    assert (event.id, event.anonymous) == ("7", False)


@pytest.mark.parametrize("mode", [b"client-individual", b"never"])
def test_subscribe_ack_is_auto_or_client(mode: bytes) -> None:
    assert "ack" in summary(b"SUBSCRIBE\ndestination:/queue/foo\nack:" + mode + b"\n\n\x00")


def test_unsubscribe_requires_the_destination_or_the_id() -> None:
    assert one(b"UNSUBSCRIBE\ndestination: /queue/a\n\n\x00") == Unsubscribe("/queue/a")
    assert one(b"UNSUBSCRIBE\nid:7\n\n\x00") == Unsubscribe("7")
    assert "id" in summary(b"UNSUBSCRIBE\n\n\x00")


def test_ack_requires_the_message_id() -> None:
    assert one(b"ACK\nmessage-id: 007\n\n\x00") == Ack(None, None, "007")
    assert "message-id" in summary(b"ACK\n\n\x00")


def test_ack_may_be_part_of_a_transaction() -> None:
    event = one(
        b"BEGIN\ntransaction: t\n\n\x00ACK\nmessage-id:007\ntransaction:t\n\n\x00COMMIT\ntransaction: t\n\n\x00"
    )
    assert event == Commit((Ack(None, None, "007"),))


def test_nack_does_not_exist() -> None:
    assert "NACK" in summary(b"NACK\nmessage-id:007\n\n\x00")


def test_abort_rolls_back_the_transaction() -> None:
    made = connection()
    assert made.receive(b"BEGIN\ntransaction:t\n\n\x00SEND\ndestination:/a\ntransaction:t\n\n\x00") == []
    assert made.receive(b"ABORT\ntransaction:t\n\n\x00") == []


def test_disconnect_is_graceful() -> None:
    assert one(b"DISCONNECT\n\n\x00") == Disconnect()


def test_message_to_a_subscription_without_id_names_none() -> None:
    frame = encode_message("1.0", message_start("1.0", "", "/queue/a"), "007", {}, b"hi")
    assert frame == b"MESSAGE\ndestination:/queue/a\nmessage-id:007\ncontent-length:2\n\nhi\x00"


def test_receipt_carries_the_receipt_id() -> None:
    assert connection().receipt("r") == b"RECEIPT\nreceipt-id:r\n\n\x00"


def test_error_carries_a_message_and_a_body() -> None:
    frame = connection().error("malformed frame received")
    assert frame.startswith(b"ERROR\nmessage:malformed frame received\n")
    assert frame.endswith(b"\n\nmalformed frame received\x00")
