"""What HTTP endpoints need of a node: to send to a user, and to read a mailbox."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from postroom.identity import UserName
from postroom.message import StoredMessage


class Post(Protocol):
    """A node, as its HTTP endpoints see it."""

    async def send_to_user(
        self, user: UserName, name: str, body: bytes, *, sender: UserName | None, headers: Mapping[str, str]
    ) -> None:
        """Send `body` to `name` (`/topic/reply`) of `user`; stored on return where its channel is durable.

        Raises Refused, or StoreUnavailable.
        """
        ...

    def pull(self, user: UserName, name: str) -> AbstractAsyncContextManager[Sequence[StoredMessage]]:
        """What waits in a mailbox; nothing where a live subscription delivers it.

        Leaving the context without an error moves the cursor past what was handed out. Raises StoreUnavailable.
        """
        ...
