"""The NATS engine against the backplane's contract."""

import itertools
from collections.abc import Iterator

import pytest
from tests.support.engines import Nats

from postroom.backplane.nats import NatsBackplane
from postroom.testing.contracts.backplane import BackplaneContract, Linked, Make
from postroom.testing.contracts.faults import Outage
from postroom.testing.links import Links

_names = itertools.count(1)


@pytest.fixture
def options() -> str:
    return f"prefix=t{next(_names)}&timeout=2"


class TestNatsBackplane(BackplaneContract):
    engine = "NATS"

    @pytest.fixture
    def make(self, nats: Nats, options: str) -> Make:
        return lambda: NatsBackplane(f"{nats.url}?{options}")

    @pytest.fixture
    def outage(self, nats: Nats) -> Outage:
        return nats

    @pytest.fixture
    def linked(self, nats: Nats, options: str) -> Iterator[Linked]:
        with Links(f"{nats.url}?{options}") as links:
            yield lambda: NatsBackplane(links.url), links
