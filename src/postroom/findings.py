"""What an engine finds when it tries itself: sentences for the operator."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from msgspec import Struct


class Finding(Struct, frozen=True):
    """One sentence: what is missing, and what would be right. `grave`: a node would not start, or not work.

    `last`: nothing more can be tried without making something at the server.
    """

    text: str
    grave: bool = True
    last: bool = False


def advice(text: str) -> Finding:
    """A finding that a node can live with."""
    return Finding(text, grave=False)


@runtime_checkable
class Checks(Protocol):
    """An engine of stores or backplanes that can try itself. Optional: one that cannot is merely used once."""

    async def check(self) -> Sequence[Finding]:
        """Reach the server, and say what permission, version or setting is missing there; nothing, if all is well.

        Called on an engine that is neither open nor running. Leaves nothing behind, closes what it opened, and
        raises PostroomError where the server cannot be reached at all.
        """
        ...
