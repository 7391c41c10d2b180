"""The protocol's rules, each with what takes it away from the nodes' real code."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from postroom.mesh import Mesh
from postroom.peering import Peering


@dataclass(frozen=True)
class Mutation:
    """A rule taken away. In runs of `profile` some seed must then show one of `shows`."""

    name: str
    rule: str
    profile: str
    shows: tuple[str, ...]
    applied: Callable[[], AbstractContextManager[Any]]


MUTATIONS: dict[str, Mutation] = {}


def _nothing(*args: object) -> None:
    pass


def _add(
    name: str, rule: str, profile: str, shows: tuple[str, ...], applied: Callable[[], AbstractContextManager[Any]]
) -> None:
    MUTATIONS[name] = Mutation(name, rule, profile, shows, applied)


_add("no comparison of logs", "", "storm", ("lost",), lambda: patch.object(Mesh, "_missed", _nothing))
_add("no holes in counters", "", "storm", ("lost",), lambda: patch.object(Peering, "_hole", _nothing))
_add("no counters in heart-beats", "", "storm", ("lost",), lambda: patch.object(Peering, "_beat", _nothing))
