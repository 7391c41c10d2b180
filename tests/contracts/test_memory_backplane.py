"""The memory engine against the backplane's contract."""

import pytest

from postroom.backplane.memory import MemoryBackplane
from postroom.testing.contracts.backplane import BackplaneContract, Make


class TestMemoryBackplane(BackplaneContract):
    engine = "memory"

    @pytest.fixture
    def make(self, request: pytest.FixtureRequest) -> Make:
        return lambda: MemoryBackplane(f"memory:{request.node.name}")
