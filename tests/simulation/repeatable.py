"""The same seed, the same run, bit for bit: in this process, in another one, on another machine.

What a program asks of chance and of addresses in memory is taken from the seed: `random` and `secrets` count from it,
and the nodes' sets keep the order in which they were filled. Their logs are kept: what is logged as an exception is
a fault of the run.
"""

import asyncio.taskgroups
import random
import secrets
import sys
from collections.abc import Hashable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any, TypeVar
from unittest.mock import patch

T = TypeVar("T", bound=Hashable)


class OrderedSet(dict[T, None]):
    """A set in the order in which it was filled: what of `set` is used by nodes, and nothing else."""

    def __init__(self, items: Iterable[T] = ()) -> None:
        super().__init__((item, None) for item in items)

    def __iter__(self) -> Iterator[T]:
        return super().__iter__()

    def add(self, item: T) -> None:
        self[item] = None

    def discard(self, item: T) -> None:
        self.pop(item, None)

    def remove(self, item: T) -> None:
        del self[item]

    def update(self, *many: Iterable[T]) -> None:  # type: ignore[override]
        for items in many:
            for item in items:
                self[item] = None

    def difference_update(self, *many: Iterable[T]) -> None:
        for items in many:
            for item in items:
                self.discard(item)

    def isdisjoint(self, items: Iterable[T]) -> bool:
        return not any(item in self for item in items)

    def __ior__(self, items: Iterable[T]) -> "OrderedSet[T]":  # type: ignore[override,misc]
        self.update(items)
        return self


class Logged:
    """Takes the place of a module's logger. `failures` are the exceptions that somebody logged and went on."""

    def __init__(self, failures: list[str]) -> None:
        self._failures = failures

    def debug(self, event: str, **values: object) -> None:
        pass

    info = warning = error = debug

    def exception(self, event: str, **values: object) -> None:
        self._failures.append(f"{event}: {sys.exc_info()[1]!r}")


def _modules() -> list[ModuleType]:
    aside = ("postroom.testing", "postroom.bench", "postroom.demo")
    return [
        module
        for name, module in sorted(sys.modules.items())
        if name.startswith("postroom.") and not name.startswith(aside)
    ]


@contextmanager
def repeatable(seed: int) -> Iterator[list[str]]:
    """All that is done inside comes of `seed`. Gives what the nodes log as exceptions."""
    failures: list[str] = []
    tokens = random.Random(seed)
    state = random.getstate()
    with ExitStack() as stack:
        modules: list[Any] = [*_modules(), asyncio.taskgroups]
        for module in modules:
            stack.enter_context(patch.object(module, "set", OrderedSet, create=True))
            if hasattr(module, "_log"):
                stack.enter_context(patch.object(module, "_log", Logged(failures)))
        stack.enter_context(patch.object(secrets, "token_hex", lambda size=16: tokens.randbytes(size).hex()))
        stack.enter_context(patch.object(secrets, "token_urlsafe", lambda size=16: tokens.randbytes(size).hex()))
        random.seed(seed)
        try:
            yield failures
        finally:
            random.setstate(state)
