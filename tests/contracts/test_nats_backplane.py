"""The NATS engine against the backplane's contract."""

import itertools
from collections.abc import Iterator

import pytest
from tests.support.engines import Nats
from tests.support.proxy import Proxy

from postroom.backplane.nats import NatsBackplane
from postroom.testing.contracts.backplane import BackplaneContract, Linked, Make, Outage

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
        proxy = Proxy(nats.port)
        proxy.start()
        yield lambda: NatsBackplane(f"{nats.url_at(proxy.port)}?{options}"), proxy
        proxy.close()
