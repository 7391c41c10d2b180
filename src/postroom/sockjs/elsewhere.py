"""What a service needs of a cluster: who has a session, and a way to have its requests answered there."""

from enum import Enum
from typing import Any, Protocol

from postroom.sockjs.exchange import Exchange
from postroom.transport.asgi import Application


class Outcome(Enum):
    """What became of a request that another node was to answer."""

    ANSWERED = "answered"  # or its client has left
    NOT_BEGUN = "not begun"  # no answer came: the client has nothing yet
    BROKEN = "broken"  # a part of the answer was lost, or the node


class HomeLost(Exception):
    """The node that had the session is gone."""


class Claims(Protocol):
    """Which node has a session. What stands for a node is opaque here.

    Raises HomeLost, and HandshakeRefused where it cannot be found out.
    """

    async def claim(self, session: str) -> Any | None:
        """Make a session this node's that was not found; its home where it is another's after all.

        None: it is ours until `release`.
        """
        ...

    async def find(self, session: str) -> Any | None:
        """The session's home on another node; None: there is none."""
        ...

    def release(self, session: str) -> None:
        """The session is over."""
        ...

    def forget(self, session: str) -> None:
        """It was not where it had been found."""
        ...


class Elsewhere(Protocol):
    """The other nodes."""

    serve: Application | None
    """Set by the service: answers what other nodes forward to this one."""

    @property
    def claims(self) -> Claims:
        """Which node has a session."""
        ...

    async def forward(self, exchange: Exchange, home: Any, body: bytes) -> Outcome:
        """Have the request answered there, and pass the answer on as it comes. Raises TooLarge."""
        ...
