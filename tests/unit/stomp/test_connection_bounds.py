"""What one client may make a connection hold, and that nothing it sends is raised to the caller."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.stomp import Connect, Connection, Event, Limits, Send, Subscribe, Violation


def connected(limits: Limits | None = None, version: str = "1.2") -> Connection:
    made = Connection(limits=limits or Limits())
    (event,) = made.receive(f"CONNECT\naccept-version:{version}\nhost:x\n\n\x00".encode())
    assert isinstance(event, Connect)
    return made


def in_transaction(headers: bytes, body: bytes) -> bytes:
    return b"SEND\ndestination:/queue/a\ntransaction:t\n" + headers + b"\n" + body + b"\x00"


@pytest.mark.parametrize(
    ("headers", "body"), [(b"", b"x" * 1000), (b"".join(b"h%d:%s\n" % (n, b"v" * 90) for n in range(10)), b"")]
)
def test_a_transaction_is_bounded_by_its_bodies_and_headers_alike(headers: bytes, body: bytes) -> None:
    made = connected(Limits(max_body_bytes=1000))
    assert made.receive(b"BEGIN\ntransaction:t\n\n\x00") == []
    for _ in range(14):
        assert made.receive(in_transaction(headers, body)) == []
    events = [event for _ in range(6) for event in made.receive(in_transaction(headers, body))]
    assert events == [Violation("a transaction holds at most 16000 bytes")]


def test_a_transaction_is_bounded_in_frames() -> None:
    made = connected()
    made.receive(b"BEGIN\ntransaction:t\n\n\x00" + in_transaction(b"", b"") * 1000)
    (event,) = made.receive(in_transaction(b"", b""))
    assert event == Violation("a transaction has at most 1000 frames")


def test_a_committed_transaction_makes_room() -> None:
    made = connected(Limits(max_body_bytes=100))
    for _ in range(5):
        made.receive(b"BEGIN\ntransaction:t\n\n\x00" + in_transaction(b"", b"x" * 100) * 10)
        (event,) = made.receive(b"COMMIT\ntransaction:t\n\n\x00")
        assert not isinstance(event, Violation)


@pytest.mark.parametrize("version", ["1.0", "1.2"])
def test_the_id_of_a_subscription_that_was_refused_may_be_used_again(version: str) -> None:
    made = connected(version=version)
    subscribe = b"SUBSCRIBE\ndestination:/queue/a\n" + (b"" if version == "1.0" else b"id:1\n") + b"\n\x00"
    for _ in range(3):
        (event,) = made.receive(subscribe)
        assert isinstance(event, Subscribe)
        made.forget(event.id)
    made.receive(subscribe)
    (event,) = made.receive(subscribe)
    assert isinstance(event, Violation)


@pytest.mark.parametrize(
    ("digits", "expected"),
    [(b"0" * 5000, Send("/queue/a", {}, b"")), (b"9" * 5000, Violation("a body has at most 262144 bytes"))],
)
def test_a_length_may_have_thousands_of_digits(digits: bytes, expected: Event) -> None:
    """int() itself refuses more than 4,300 digits, with an error that no caller expects."""
    assert connected().receive(b"SEND\ndestination:/queue/a\ncontent-length:" + digits + b"\n\n\x00") == [expected]


def test_frames_behind_connect_are_read_in_the_version_it_agreed_on() -> None:
    send = b"SEND\ndestination:/queue/a\n a : b\\d \n\n\x00"
    made = Connection(limits=Limits())
    _, event = made.receive(b"CONNECT\nlogin: anna\n\n\x00" + send)
    assert event == Send("/queue/a", {"a": "b\\d"}, b"")
    made = Connection(limits=Limits())
    _, event = made.receive(b"CONNECT\naccept-version:1.1\n\n\x00SEND\ndestination:/queue/a\na:\\r\n\n\x00")
    assert event == Violation("STOMP 1.1 has no escape sequence '\\\\r' in headers")


pieces = st.lists(
    st.sampled_from(
        [
            b"SEND\n", b"SUBSCRIBE\n", b"ACK\n", b"BEGIN\n", b"COMMIT\n", b"DISCONNECT\n", b"destination:/queue/a\n",
            b"id:1\n", b"transaction:t\n", b"receipt:r\n", b"content-length:2\n", b"\n", b"\r\n", b"\x00", b"hi",
            b"\\c", b":", b"\xff", b"CONNECT\naccept-version:1.2\n\n\x00",
        ]
    ),
    max_size=30,
)  # fmt: skip


@given(pieces, st.lists(st.integers(0, 300), max_size=10), st.sampled_from(["1.0", "1.1", "1.2"]))
def test_any_split_of_any_bytes_gives_the_same_events(parts: list[bytes], cuts: list[int], version: str) -> None:
    wire = b"".join(parts)
    whole = connected(version=version).receive(wire)
    made = connected(version=version)
    at = [0, *sorted(cut % (len(wire) + 1) for cut in cuts), len(wire)]
    split = [event for start, end in itertools.pairwise(at) for event in made.receive(wire[start:end])]
    assert [told(event) for event in split] == [told(event) for event in whole]


def told(event: Event) -> object:
    """The event; of a violation only that it is one: where two things are wrong, the first seen is named."""
    return Violation if isinstance(event, Violation) else event
