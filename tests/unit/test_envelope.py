"""What travels between nodes: read as it was written, or refused as a whole."""

import pytest

from postroom.destination import Topic
from postroom.envelope import Unreadable, cast, pack, seal, unseal
from postroom.message import Message


def test_what_is_sealed_is_unsealed() -> None:
    sent = cast(Message(Topic("/topic/a"), None, {"x": "é"}, b"\xff\x00", "id.1"))
    envelope = unseal(seal("n1", 2, 3, 4, [pack(sent)]))
    assert (envelope.node, envelope.incarnation, envelope.counter, envelope.highest) == ("n1", 2, 3, 4)
    assert [*envelope.items] == [sent]


@pytest.mark.parametrize(
    "payload", [b"", b"\xff", b"\x96\x01\xa1\xff\x01\x01\x01\x90", b"\x96\x63\xa1n\x01\x01\x01\x90", b"\x91" * 100_000]
)
def test_what_no_node_has_written_is_unreadable(payload: bytes) -> None:
    with pytest.raises(Unreadable):
        unseal(payload)
