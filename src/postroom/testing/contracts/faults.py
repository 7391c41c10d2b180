"""What the kit may do to an engine's server, and to its connections."""

import os
from typing import Final, Protocol, TypeVar

import pytest

SECONDS: Final = 20.0 * float(os.environ.get("POSTROOM_TEST_SCALE", "1"))
"""How long anything may take that is expected to happen."""


class Outage(Protocol):
    """What may be done to the server behind the engines of `make`. Each method returns once it is done."""

    def restart(self) -> None:
        """Kill it, and start it again at the same address."""
        ...

    def pause(self) -> None:
        """It stays connected, and does nothing."""
        ...

    def resume(self) -> None:
        """It goes on."""
        ...


class Link(Protocol):
    """What may be done to the connections of an engine. Each method returns once it is done.

    `postroom.testing.proxy.Proxy` does it to one server's, `postroom.testing.links.Links` to those of a URL.
    """

    def cut(self) -> None:
        """Reset all of them; what was swallowed is lost."""
        ...

    def refuse(self) -> None:
        """Reset all of them, and each new one."""
        ...

    def blackhole(self) -> None:
        """They stay, new ones are taken, and nothing goes through."""
        ...

    def mute(self) -> None:
        """What the server is told goes through, and nothing that it answers."""
        ...

    def delay(self, seconds: float) -> None:
        """All that goes through takes so much longer."""
        ...

    def scatter(self, seconds: float) -> None:
        """Each connection takes longer by a time of its own, up to `seconds`: they overtake one another."""
        ...

    def heal(self) -> None:
        """All is well again; what was swallowed goes through now."""
        ...


T = TypeVar("T")


def given(what: T | None) -> T:
    """What the kit was given to hurt an engine with; the test is left out where that is nothing."""
    if what is None:
        pytest.skip("the kit was given nothing to do this with")
    return what
