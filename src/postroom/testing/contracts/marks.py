"""What makes the contracts' tests run under any setting of `asyncio_mode`."""

import inspect
from typing import TypeVar

import pytest

C = TypeVar("C")


def asynchronous(contract: type[C]) -> type[C]:
    """Mark the coroutines of a contract for pytest-asyncio. Those that are no coroutines it would warn of."""
    for name, each in tuple(vars(contract).items()):
        if name.startswith("test_") and inspect.iscoroutinefunction(each):
            setattr(contract, name, pytest.mark.asyncio(each))
    return contract
