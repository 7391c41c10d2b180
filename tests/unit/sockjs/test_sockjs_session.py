from postroom.sockjs import framing
from postroom.sockjs.session import Session


def opened() -> Session:
    session = Session()
    session.attach()
    assert session.take() == b"o"
    session.detach()
    return session


def fetched(session: Session) -> list[bytes | None]:
    """What one more receiving request gets, and then sees no more."""
    session.attach()
    frames = [session.take(), session.take()]
    session.detach()
    return frames


def test_the_first_frame_is_o_whatever_was_written_before() -> None:
    session = Session()
    session.write(framing.element(b"x"))
    session.close(3000, "Go away!")
    session.attach()
    assert [session.take() for _ in range(4)] == [b"o", b'a["x"]', b'c[3000,"Go away!"]', b'c[3000,"Go away!"]']
    assert session.said_goodbye


def test_writes_are_joined_into_one_frame() -> None:
    session = opened()
    session.write(framing.element(b"a") + framing.element(b'"'))
    session.write(framing.element(b"c"))
    assert session.pending_bytes == len(b'"a","\\"","c",')
    assert fetched(session) == [b'a["a","\\"","c"]', None]
    assert session.pending_bytes == 0


def test_nothing_is_written_to_a_session_that_is_closing() -> None:
    session = opened()
    session.close(1012, "later")
    session.write(framing.element(b"x"))
    session.close(1000, "again")
    assert fetched(session) == [b'c[1012,"later"]', b'c[1012,"later"]']


def test_only_the_next_receiving_request_proves_a_response() -> None:
    session = opened()
    session.write(framing.element(b"x"))
    assert not session.probe(b"1")
    assert session.unproven
    assert session.attach() == []
    assert session.take() == b'a["x"]'
    session.detach()
    assert session.unproven
    assert session.attach() == [b"1"]
    assert not session.unproven


def test_what_came_after_the_response_is_not_proven_with_it() -> None:
    session = opened()
    session.write(framing.element(b"x"))
    session.probe(b"1")
    session.attach()
    session.take()
    session.write(framing.element(b"y"))
    session.probe(b"2")
    session.detach()
    assert session.attach() == [b"1"]
    assert session.take() == b'a["y"]'
    session.detach()
    assert session.attach() == [b"2"]


def test_what_the_open_request_proved_before_it_was_asked_is_proven_at_once() -> None:
    session = opened()
    session.write(framing.element(b"x"))
    fetched(session)
    session.attach()
    assert session.probe(b"1")
    assert not session.probe(b"2"), "nothing new was written: whether there is still somebody, only a request tells"
    session.detach()
    assert session.attach() == [b"2"]


def test_an_interrupted_session_gives_nothing_more_and_proves_nothing() -> None:
    session = opened()
    session.write(framing.element(b"x"))
    session.probe(b"1")
    session.attach()
    session.take()
    session.write(framing.element(b"y"))
    session.interrupt()
    session.detach()
    assert session.attach() == []
    assert session.take() == b'c[1002,"Connection interrupted"]'
    assert not session.unproven


def test_a_session_that_was_closed_keeps_its_close_frame_when_interrupted() -> None:
    session = opened()
    session.close(3000, "Go away!")
    session.interrupt()
    assert fetched(session)[0] == b'c[3000,"Go away!"]'
