"""STOMP 1.2: what its specification says of a server, one test a normative sentence; the section opens each name."""

import pytest

from postroom.stomp import (
    Ack,
    Commit,
    Connect,
    Connection,
    Decoder,
    Disconnect,
    Event,
    Frame,
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


def connection(headers: str = "", limits: Limits | None = None) -> Connection:
    made = Connection(limits=limits or Limits())
    (event,) = made.receive(f"CONNECT\naccept-version:1.2\nhost:x\n{headers}\n\x00".encode())
    assert isinstance(event, Connect)
    return made


def events(wire: bytes) -> list[Event]:
    return connection().receive(wire)


def one(wire: bytes) -> Event:
    (event,) = events(wire)
    return event


def summary(wire: bytes) -> str:
    event = one(wire)
    assert isinstance(event, Violation)
    return event.summary


def send(**headers: str) -> Send:
    return Send("/queue/a", headers, b"")


# ── STOMP Frames ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("eol", [b"\n", b"\r\n"])
def test_frames_a_line_ends_with_an_optional_cr_and_a_required_lf(eol: bytes) -> None:
    assert one(b"SEND" + eol + b"destination:/queue/a" + eol + b"x:y" + eol + eol + b"\x00") == send(x="y")


def test_frames_lines_may_end_in_either_way_within_one_frame() -> None:
    assert one(b"SEND\r\ndestination:/queue/a\nx:y\r\n\n\x00") == send(x="y")


def test_frames_following_the_command_are_zero_or_more_headers() -> None:
    (frame,) = Decoder(Limits()).feed(b"DISCONNECT\n\n\x00")
    assert frame == Frame("DISCONNECT", {}, b"")


def test_frames_the_nul_may_be_followed_by_many_ends_of_line() -> None:
    wire = b"SEND\ndestination:/queue/a\n\n\x00"
    assert events(b"\n\r\n" + wire + b"\n\r\n\n" + wire + b"\r\n") == [send(), send()]


@pytest.mark.parametrize("wire", [b"send\ndestination:/queue/a\n\n\x00", b"SEND\nDestination:/queue/a\n\n\x00"])
def test_frames_commands_and_header_names_are_case_sensitive(wire: bytes) -> None:
    assert summary(wire)


# ── Value Encoding ────────────────────────────────────────────────────────────────────────────────────────


def test_value_encoding_commands_and_headers_are_utf_8() -> None:
    assert one("SEND\ndestination:/queue/a\nwer:Jürgen 你好\n\n\x00".encode()) == send(wer="Jürgen 你好")
    assert "UTF-8" in summary(b"SEND\ndestination:/queue/a\nx:\xff\n\n\x00")


@pytest.mark.parametrize(("wire", "text"), [(b"\\r", "\r"), (b"\\n", "\n"), (b"\\c", ":"), (b"\\\\", "\\")])
def test_value_encoding_the_four_transformations_must_be_applied_both_ways(wire: bytes, text: str) -> None:
    assert one(b"SEND\ndestination:/queue/a\nx:" + wire + b"\n\n\x00") == send(x=text)
    assert encode_frame("1.2", "RECEIPT", {"receipt-id": text}) == b"RECEIPT\nreceipt-id:" + wire + b"\n\n\x00"


def test_value_encoding_names_are_escaped_as_values_are() -> None:
    event = one(b"SEND\ndestination:/queue/a\na\\cb:c\n\n\x00")
    assert event == Send("/queue/a", {"a:b": "c"}, b"")


def test_value_encoding_is_undone_in_one_pass() -> None:
    assert one(b"SEND\ndestination:/queue/a\nx:\\\\n\n\n\x00") == send(x="\\n")


@pytest.mark.parametrize("sequence", [b"\\t", b"\\x", b"\\", b"\\\\\\"])
def test_value_encoding_undefined_escape_sequences_must_be_a_fatal_error(sequence: bytes) -> None:
    made = connection()
    (event,) = made.receive(b"SEND\ndestination:/queue/a\nx:" + sequence + b"\n\n\x00")
    assert isinstance(event, Violation)
    assert made.receive(b"SEND\ndestination:/queue/a\n\n\x00") == []


def test_value_encoding_connect_and_connected_are_not_escaped() -> None:
    made = Connection(limits=Limits())
    (event,) = made.receive(b"CONNECT\naccept-version:1.2\nlogin:a\\t\npasscode:b:c\n\n\x00")
    assert isinstance(event, Connect)
    assert (event.login, event.passcode) == ("a\\t", "b:c")
    assert b"\nuser-name:a:b\\c\n" in made.connected("s", "a:b\\c")


def test_value_encoding_connected_cannot_be_broken_by_a_user_name() -> None:
    wire = connection().connected("s", "anna\nadmin:true\r\n\n")
    assert wire.count(b"\n\n") == 1
    assert b"\nadmin" not in wire


def test_value_encoding_headers_must_never_be_trimmed_or_padded() -> None:
    assert one(b"SEND\ndestination:/queue/a\n x : y \n\n\x00") == Send("/queue/a", {" x ": " y "}, b"")
    assert b"\nreceipt-id: r \n" in connection().receipt(" r ")


# ── Body ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("wire", [b"SUBSCRIBE\nid:1\ndestination:/queue/a", b"DISCONNECT", b"BEGIN\ntransaction:t"])
def test_body_frames_other_than_send_must_not_have_one(wire: bytes) -> None:
    assert "no body" in summary(wire + b"\n\nbody\x00")


# ── Header content-length ─────────────────────────────────────────────────────────────────────────────────


def test_content_length_this_number_of_octets_must_be_read() -> None:
    event = one(b"SEND\ndestination:/queue/a\ncontent-length:5\n\na\x00b\x00\x00\x00")
    assert event == Send("/queue/a", {}, b"a\x00b\x00\x00")


def test_content_length_may_be_in_all_frames() -> None:
    assert one(b"DISCONNECT\ncontent-length:0\n\n\x00") == Disconnect()


def test_content_length_the_frame_still_needs_its_nul() -> None:
    assert "NUL" in summary(b"SEND\ndestination:/queue/a\ncontent-length:2\n\nabc\x00")


def test_content_length_counts_octets_not_characters() -> None:
    event = one("SEND\ndestination:/queue/a\ncontent-length:2\n\né\x00".encode())
    assert event == Send("/queue/a", {}, "é".encode())


@pytest.mark.parametrize("length", [b"", b"-1", b"+1", b"1.0", b"0x1", b"1_0", "²".encode(), "٣".encode()])
def test_content_length_is_a_number(length: bytes) -> None:
    assert "content-length" in summary(b"SEND\ndestination:/queue/a\ncontent-length:" + length + b"\n\n\x00")


def test_content_length_should_be_in_message_and_error() -> None:
    assert b"\ncontent-length:2\n" in encode_message("1.2", message_start("1.2", "0", "/a"), "1", {}, b"hi")
    assert b"\ncontent-length:3\n" in connection().error("bad")


# ── Repeated Header Entries, Size Limits ──────────────────────────────────────────────────────────────────


def test_repeated_header_entries_only_the_first_should_be_used() -> None:
    assert one(b"SEND\ndestination:/queue/a\nfoo:World\nfoo:Hello\n\n\x00") == send(foo="World")


@pytest.mark.parametrize(
    "wire",
    [
        b"SEND\n" + b"".join(b"h%d:v\n" % n for n in range(5)) + b"\n\x00",
        b"SEND\nx:" + b"v" * 40 + b"\n\n\x00",
        b"SEND\ndestination:/queue/a\n\n" + b"x" * 60 + b"\x00",
        b"SEND\ndestination:/queue/a\ncontent-length:60\n\n",
    ],
)
def test_size_limits_may_be_placed_on_headers_header_lines_and_bodies(wire: bytes) -> None:
    (event,) = connection(limits=Limits(max_headers=4, max_header_bytes=40, max_body_bytes=50)).receive(wire)
    assert isinstance(event, Violation)


# ── Connecting ────────────────────────────────────────────────────────────────────────────────────────────


def test_connecting_servers_must_handle_stomp_as_connect() -> None:
    made = Connection(limits=Limits())
    (event,) = made.receive(b"STOMP\naccept-version:1.2\nhost:x\n\n\x00")
    assert isinstance(event, Connect)
    assert made.version == "1.2"


def test_connected_must_set_the_version() -> None:
    assert b"\nversion:1.2\n" in connection().connected("s", "anna")


def test_connected_server_field_has_a_name_and_maybe_a_version() -> None:
    made = Connection(limits=Limits(), server="postroom/1.0")
    made.receive(b"CONNECT\naccept-version:1.2\nhost:x\n\n\x00")
    assert b"\nserver:postroom/1.0\n" in made.connected("s", "anna")


def test_connecting_a_missing_host_is_forgiven() -> None:
    """The specification demands it, older browser clients leave it out; without virtual hosts nothing hangs on it."""
    (event,) = Connection(limits=Limits()).receive(b"CONNECT\naccept-version:1.2\n\n\x00")
    assert isinstance(event, Connect)
    assert event.host is None


@pytest.mark.parametrize(
    ("accept", "version"),
    [("1.0,1.1,2.0", "1.1"), ("1.2", "1.2"), ("1.2,1.1,1.0", "1.2"), ("1.1, 1.2", "1.2"), ("1.0", "1.0")],
)
def test_protocol_negotiation_the_highest_version_in_common_is_used(accept: str, version: str) -> None:
    made = Connection(limits=Limits())
    made.receive(f"CONNECT\naccept-version:{accept}\nhost:x\n\n\x00".encode())
    assert f"\nversion:{version}\n".encode() in made.connected("s", "anna")


def test_protocol_negotiation_without_a_common_version_the_server_must_respond_with_its_own() -> None:
    made = Connection(limits=Limits())
    (event,) = made.receive(b"CONNECT\naccept-version:2.0,2.1\nhost:x\n\n\x00")
    assert isinstance(event, Violation)
    frame = made.error(event.summary, event.receipt, event.detail, event.headers)
    assert frame.startswith(b"ERROR\n")
    assert b"\nversion:1.0,1.1,1.2\n" in frame
    assert b"\ncontent-type:text/plain\n" in frame


# ── Heart-beating ─────────────────────────────────────────────────────────────────────────────────────────


def test_heart_beating_a_missing_header_is_the_same_as_zeros() -> None:
    assert connection().heart_beat == connection("heart-beat:0,0\n").heart_beat == (0, 0)


@pytest.mark.parametrize(
    ("client", "outgoing", "incoming"),
    [("5000,0", 0, 10_000), ("0,5000", 10_000, 0), ("20000,30000", 30_000, 20_000), ("1,1", 10_000, 10_000)],
)
def test_heart_beating_is_every_max_of_both_sides(client: str, outgoing: int, incoming: int) -> None:
    assert connection(f"heart-beat:{client}\n").heart_beat == (outgoing, incoming)


@pytest.mark.parametrize("server", [(0, 0), (0, 10_000), (10_000, 0)])
def test_heart_beating_there_are_none_where_one_side_says_zero(server: tuple[int, int]) -> None:
    made = Connection(limits=Limits(), heart_beat=server)
    made.receive(b"CONNECT\naccept-version:1.2\nheart-beat:5,5\n\n\x00")
    assert [bool(interval) for interval in made.heart_beat] == [bool(interval) for interval in server]


# ── Client Frames ─────────────────────────────────────────────────────────────────────────────────────────


def test_client_frames_an_unknown_one_may_be_answered_with_an_error() -> None:
    assert "HELLO" in summary(b"HELLO\n\n\x00")


@pytest.mark.parametrize("command", [b"CONNECTED", b"MESSAGE", b"RECEIPT", b"ERROR"])
def test_client_frames_a_server_frame_is_none(command: bytes) -> None:
    assert summary(command + b"\n\n\x00")


def test_send_requires_a_destination() -> None:
    assert "destination" in summary(b"SEND\n\nhi\x00")


def test_send_user_defined_headers_must_be_passed_through() -> None:
    event = one(b"SEND\ndestination:/queue/a\npriority:9\na\\cb:c\\nd\n\n\x00")
    assert isinstance(event, Send)
    frame = encode_message("1.2", message_start("1.2", "0", event.destination), "1", event.headers, event.body)
    assert b"\npriority:9\na\\cb:c\\nd\n" in frame


def test_subscribe_requires_a_destination_and_an_id() -> None:
    assert "destination" in summary(b"SUBSCRIBE\nid:0\n\n\x00")
    assert "id" in summary(b"SUBSCRIBE\ndestination:/queue/a\n\n\x00")


def test_subscribe_different_subscriptions_must_use_different_identifiers() -> None:
    first, second = events(b"SUBSCRIBE\nid:0\ndestination:/a\n\n\x00SUBSCRIBE\nid:0\ndestination:/b\n\n\x00")
    assert isinstance(first, Subscribe)
    assert isinstance(second, Violation)


@pytest.mark.parametrize("mode", ["auto", "client", "client-individual"])
def test_subscribe_ack_has_three_valid_values(mode: str) -> None:
    event = one(f"SUBSCRIBE\nid:0\ndestination:/a\nack:{mode}\n\n\x00".encode())
    assert isinstance(event, Subscribe)
    assert event.ack == mode


def test_subscribe_ack_defaults_to_auto() -> None:
    event = one(b"SUBSCRIBE\nid:0\ndestination:/a\n\n\x00")
    assert isinstance(event, Subscribe)
    assert event.ack == "auto"


@pytest.mark.parametrize("mode", [b"", b"Auto", b"never"])
def test_subscribe_ack_any_other_value_is_refused(mode: bytes) -> None:
    assert "ack" in summary(b"SUBSCRIBE\nid:0\ndestination:/a\nack:" + mode + b"\n\n\x00")


def test_unsubscribe_requires_the_id() -> None:
    assert "id" in summary(b"UNSUBSCRIBE\ndestination:/a\n\n\x00")
    assert one(b"UNSUBSCRIBE\nid:0\nreceipt:r\n\n\x00") == Unsubscribe("0", "r")


@pytest.mark.parametrize(("command", "kind"), [(b"ACK", Ack), (b"NACK", Nack)])
def test_ack_and_nack_require_the_id_of_the_ack_header(command: bytes, kind: type[Ack] | type[Nack]) -> None:
    assert one(command + b"\nid:12345\n\n\x00") == kind("12345", None, None)
    assert "id" in summary(command + b"\nsubscription:0\nmessage-id:1\n\n\x00")


@pytest.mark.parametrize("command", [b"BEGIN", b"COMMIT", b"ABORT"])
def test_transactions_require_the_transaction_header(command: bytes) -> None:
    assert "transaction" in summary(command + b"\n\n\x00")


def test_begin_transaction_identifiers_must_be_unique_while_open() -> None:
    begin, commit = b"BEGIN\ntransaction:t\n\n\x00", b"COMMIT\ntransaction:t\n\n\x00"
    assert events(begin + commit + begin + commit) == [Commit(()), Commit(())]
    (event,) = events(begin + begin)
    assert isinstance(event, Violation)


def test_begin_what_is_sent_and_acknowledged_in_a_transaction_is_handled_at_once() -> None:
    (event,) = events(
        b"BEGIN\ntransaction:t\n\n\x00SEND\ndestination:/queue/a\ntransaction:t\n\n\x00"
        b"ACK\nid:1\ntransaction:t\n\n\x00NACK\nid:2\ntransaction:t\n\n\x00COMMIT\ntransaction:t\n\n\x00"
    )
    assert event == Commit((send(), Ack("1", None, None), Nack("2", None, None)))


@pytest.mark.parametrize("command", [b"COMMIT", b"ABORT"])
def test_commit_and_abort_must_name_a_transaction_in_progress(command: bytes) -> None:
    assert "no open transaction" in summary(command + b"\ntransaction:t\n\n\x00")


def test_disconnect_no_more_frames_are_taken_behind_it() -> None:
    made = connection()
    wire = b"SEND\ndestination:/queue/a\n\n\x00"
    assert made.receive(wire + b"DISCONNECT\nreceipt:77\n\n\x00" + wire) == [send(), Disconnect("77")]
    assert made.receive(wire) == []


# ── Server Frames ─────────────────────────────────────────────────────────────────────────────────────────


def test_message_must_carry_destination_message_id_and_subscription() -> None:
    frame = encode_message("1.2", message_start("1.2", "0", "/queue/a"), "007", {"content-type": "a/b"}, b"hello")
    assert frame == (
        b"MESSAGE\nsubscription:0\ndestination:/queue/a\nmessage-id:007\ncontent-type:a/b\ncontent-length:5\n\nhello\x00"
    )


def test_message_must_carry_ack_where_one_is_expected() -> None:
    frame = encode_message("1.2", message_start("1.2", "0", "/queue/a"), "007", {}, b"", "0-7")
    assert b"\nack:0-7\n" in frame


def test_receipt_id_is_the_receipt_header_and_there_is_no_body() -> None:
    assert connection().receipt("message:12345") == b"RECEIPT\nreceipt-id:message\\c12345\n\n\x00"


def test_error_should_contain_a_message_and_the_receipt_id() -> None:
    frame = connection().error("no destination", "message-12345", "the frame was: …")
    (decoded,) = Decoder(Limits()).feed(frame)
    assert isinstance(decoded, Frame)
    assert decoded.headers["message"] == "no destination"
    assert decoded.headers["receipt-id"] == "message-12345"
    assert decoded.body == "the frame was: …".encode()
