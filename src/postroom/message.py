"""A message, and a message with its place in a log."""

from collections.abc import Mapping

from msgspec import Struct

from postroom.destination import Destination
from postroom.identity import UserName
from postroom.position import Position


class Message(Struct, frozen=True, gc=False):
    """What one client sent to one destination.

    `headers` are those that travel with it (`content-type` and the sender's own); `id` names a transient
    message, and is empty for one that will be stored: its position names it. `sender` is None for the server.
    """

    destination: Destination
    sender: UserName | None
    headers: Mapping[str, str]
    body: bytes
    id: str = ""


class StoredMessage(Struct, frozen=True, gc=False):
    """A message in a log.

    `previous` is the offset of the message before it in the log (0: the first), the link by which a gap is
    seen. `number` counts the log's messages from 1 without holes. `live` says that somebody followed the log
    when it was appended, so that somebody may have been sent it.
    """

    message: Message
    position: Position
    previous: int
    number: int
    live: bool = False

    @property
    def id(self) -> str:
        """The `message-id` at every delivery of this message."""
        return f"{self.position.epoch}-{self.position.offset}"
