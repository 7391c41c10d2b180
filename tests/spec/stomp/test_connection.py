"""What the STOMP specifications say of a server, sentence by sentence, without a socket.

The names carry the section of STOMP 1.2; 1.0 and 1.1 where they differ.
"""

import pytest

from postroom.stomp import (
    Ack,
    Commit,
    Connect,
    Connection,
    Disconnect,
    Done,
    Event,
    Limits,
    Nack,
    Send,
    Subscribe,
    Unsubscribe,
    Violation,
)


def connection(accept: str | None = "1.0,1.1,1.2", heart_beat: str | None = None) -> Connection:
    made = Connection(limits=Limits())
    headers = (f"accept-version:{accept}\n" if accept else "") + (f"heart-beat:{heart_beat}\n" if heart_beat else "")
    (event,) = made.receive(f"CONNECT\nhost:x\n{headers}\n\x00".encode())
    assert isinstance(event, Connect)
    return made


def one(made: Connection, text: str) -> Event:
    (event,) = made.receive(text.encode() + b"\x00")
    return event


def refused(made: Connection, text: str) -> str:
    event = one(made, text)
    assert isinstance(event, Violation)
    assert made.receive(b"SEND\ndestination:/queue/a\n\n\x00") == [], "nothing is served after a violation"
    return event.summary


# ── Connecting ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("command", ["CONNECT", "STOMP"])
def test_connecting_with_either_command(command: str) -> None:
    made = Connection(limits=Limits())
    event = one(made, f"{command}\naccept-version:1.2\nhost:here\nlogin:anna\npasscode:x:y\n\n")
    assert isinstance(event, Connect)
    assert (event.host, event.login, event.passcode) == ("here", "anna", "x:y")


@pytest.mark.parametrize(
    ("accept", "version"),
    [("1.0,1.1,1.2", "1.2"), ("1.1", "1.1"), ("1.0,1.1", "1.1"), (None, "1.0"), ("1.2,7.0", "1.2")],
)
def test_protocol_negotiation_takes_the_highest_common_version(accept: str | None, version: str) -> None:
    assert connection(accept).version == version


def test_protocol_negotiation_without_a_common_version_names_those_of_the_server() -> None:
    event = one(Connection(limits=Limits()), "CONNECT\naccept-version:2.0\nhost:x\n\n")
    assert isinstance(event, Violation)
    assert event.headers == {"version": "1.0,1.1,1.2"}


def test_connected_says_what_was_agreed_on() -> None:
    frame = connection(heart_beat="5000,20000").connected("s1", "anna")
    assert frame.startswith(b"CONNECTED\nversion:1.2\n")
    assert b"\nheart-beat:20000,10000\n" in frame
    assert b"\nuser-name:anna\n" in frame
    assert b"\nsession:s1\n" in frame


def test_stomp_1_0_has_no_heart_beats() -> None:
    made = connection(None, "1000,1000")
    assert made.heart_beat == (0, 0)
    assert b"heart-beat" not in made.connected("s1", "anna")


@pytest.mark.parametrize(
    ("client", "agreed"),
    [("0,0", (0, 0)), ("0,5000", (10000, 0)), ("30000,0", (0, 30000)), ("1,30000", (30000, 10000))],
)
def test_heart_beating_takes_the_slower_side(client: str, agreed: tuple[int, int]) -> None:
    assert connection(heart_beat=client).heart_beat == agreed


@pytest.mark.parametrize("text", ["1", "a,b", "-1,0", "1,2,3", ","])
def test_heart_beating_that_is_no_pair_of_numbers_is_refused(text: str) -> None:
    assert "heart-beat" in refused(Connection(limits=Limits()), f"CONNECT\naccept-version:1.2\nheart-beat:{text}\n\n")


def test_the_first_frame_is_connect() -> None:
    assert "first frame" in refused(Connection(limits=Limits()), "SEND\ndestination:/queue/a\n\n")


def test_connecting_twice_is_refused() -> None:
    assert "already" in refused(connection(), "CONNECT\naccept-version:1.2\n\n")


def test_frames_may_follow_connect_at_once() -> None:
    made = Connection(limits=Limits())
    events = made.receive(b"CONNECT\naccept-version:1.2\n\n\x00SEND\ndestination:/queue/a\n\nhi\x00")
    assert [type(event) for event in events] == [Connect, Send]


# ── Client frames ─────────────────────────────────────────────────────────────────────────────────────────


def test_send_carries_what_the_receiver_may_see() -> None:
    event = one(connection(), "SEND\ndestination:/queue/a\ncontent-length:2\nreceipt:r\nx:y\n\nhi")
    assert event == Send("/queue/a", {"x": "y"}, b"hi", "r")


@pytest.mark.parametrize(
    "text",
    [
        "SEND\n\nhi",
        "SUBSCRIBE\nid:1\n\n",
        "SUBSCRIBE\ndestination:/queue/a\n\n",
        "SUBSCRIBE\nid:1\ndestination:/queue/a\nack:never\n\n",
        "UNSUBSCRIBE\n\n",
        "ACK\n\n",
        "NACK\nmessage-id:1\n\n",
        "BEGIN\n\n",
        "COMMIT\ntransaction:t\n\n",
        "ABORT\ntransaction:t\n\n",
        "SEND\ndestination:/queue/a\ntransaction:t\n\n",
        "CONNECTED\n\n",
        "send\ndestination:/queue/a\n\n",
        "SUBSCRIBE\nid:1\ndestination:/queue/a\n\nbody",
    ],
)
def test_what_lacks_a_required_header_or_is_no_client_frame_is_refused(text: str) -> None:
    assert refused(connection("1.2"), text)


def test_an_error_carries_the_receipt_that_was_asked_for() -> None:
    made = connection()
    event = one(made, "SEND\nreceipt:77\n\nhi")
    assert isinstance(event, Violation)
    assert event.receipt == "77"
    frame = made.error(event.summary, event.receipt)
    assert b"\nreceipt-id:77\n" in frame
    assert b"\nmessage:SEND needs a destination\n" in frame


def test_subscribe_and_unsubscribe() -> None:
    made = connection()
    event = one(made, "SUBSCRIBE\nid:1\ndestination:/queue/a\n\n")
    assert isinstance(event, Subscribe)
    assert (event.id, event.destination, event.ack, event.anonymous) == ("1", "/queue/a", "auto", False)
    assert one(made, "UNSUBSCRIBE\nid:1\nreceipt:r\n\n") == Unsubscribe("1", "r")
    assert isinstance(one(made, "SUBSCRIBE\nid:1\ndestination:/queue/b\n\n"), Subscribe)


def test_a_subscription_id_is_unique() -> None:
    made = connection()
    one(made, "SUBSCRIBE\nid:1\ndestination:/queue/a\n\n")
    assert "already" in refused(made, "SUBSCRIBE\nid:1\ndestination:/queue/b\n\n")


def test_stomp_1_0_subscribes_by_destination() -> None:
    made = connection(None)
    event = one(made, "SUBSCRIBE\ndestination:/queue/a\n\n")
    assert isinstance(event, Subscribe)
    assert (event.id, event.anonymous) == ("/queue/a", True)
    assert one(made, "UNSUBSCRIBE\ndestination:/queue/a\n\n") == Unsubscribe("/queue/a")


def test_acknowledging_names_the_message_as_each_version_does() -> None:
    assert one(connection("1.2"), "ACK\nid:a1\n\n") == Ack("a1", None, None)
    assert one(connection("1.1"), "NACK\nsubscription:0\nmessage-id:7\n\n") == Nack(None, "0", "7")
    assert one(connection("1.0"), "ACK\nmessage-id:7\n\n") == Ack(None, None, "7")
    assert "NACK" in refused(connection("1.0"), "NACK\nmessage-id:7\n\n")


# ── Transactions ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_transaction_is_handed_over_whole_and_in_order() -> None:
    made = connection()
    assert made.receive(b"BEGIN\ntransaction:t\n\n\x00") == []
    assert one(made, "SEND\ndestination:/queue/a\ntransaction:t\nreceipt:r1\n\n1") == Done("r1")
    assert made.receive(b"ACK\nid:a1\ntransaction:t\n\n\x00") == []
    assert made.receive(b"SEND\ndestination:/queue/b\ntransaction:t\n\n2\x00") == []
    assert one(made, "COMMIT\ntransaction:t\nreceipt:r2\n\n") == Commit(
        (Send("/queue/a", {}, b"1"), Ack("a1", None, None), Send("/queue/b", {}, b"2")), "r2"
    )


def test_an_aborted_transaction_is_gone() -> None:
    made = connection()
    made.receive(b"BEGIN\ntransaction:t\n\n\x00SEND\ndestination:/queue/a\ntransaction:t\n\n1\x00")
    assert one(made, "ABORT\ntransaction:t\nreceipt:r\n\n") == Done("r")
    assert "no open transaction" in refused(made, "COMMIT\ntransaction:t\n\n")


def test_a_transaction_is_begun_once() -> None:
    made = connection()
    made.receive(b"BEGIN\ntransaction:t\n\n\x00")
    assert "already" in refused(made, "BEGIN\ntransaction:t\n\n")


def test_open_transactions_are_bounded() -> None:
    made = connection()
    for number in range(10):
        made.receive(f"BEGIN\ntransaction:{number}\n\n\x00".encode())
    assert "at most 10" in refused(made, "BEGIN\ntransaction:more\n\n")


# ── The end ───────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_is_served_after_disconnect() -> None:
    made = connection()
    events = made.receive(b"DISCONNECT\nreceipt:77\n\n\x00SEND\ndestination:/queue/a\n\nhi\x00")
    assert events == [Disconnect("77")]
    assert made.receive(b"SEND\ndestination:/queue/a\n\nhi\x00") == []


def test_a_receipt_names_the_frame_that_asked_for_it() -> None:
    assert connection().receipt("message-12345") == b"RECEIPT\nreceipt-id:message-12345\n\n\x00"


def test_headers_of_connect_are_not_escaped() -> None:
    made = Connection(limits=Limits())
    event = one(made, "CONNECT\naccept-version:1.2\nlogin:a\\cb\n\n")
    assert isinstance(event, Connect)
    assert event.login == "a\\cb"
