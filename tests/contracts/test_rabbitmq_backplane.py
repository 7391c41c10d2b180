"""The RabbitMQ engine against the backplane's contract."""

import itertools
from collections.abc import Iterator

import pytest
from tests.support.engines import RabbitMQ
from tests.support.proxy import Proxy

from postroom.backplane.rabbitmq import RabbitBackplane
from postroom.testing.contracts.backplane import BackplaneContract, Linked, Make, Outage

_names = itertools.count(1)


@pytest.fixture
def options() -> str:
    return f"prefix=t{next(_names)}&timeout=2"


class TestRabbitBackplane(BackplaneContract):
    engine = "RabbitMQ"

    @pytest.fixture
    def make(self, rabbitmq: RabbitMQ, options: str) -> Make:
        return lambda: RabbitBackplane(f"{rabbitmq.url}?{options}")

    @pytest.fixture
    def outage(self, rabbitmq: RabbitMQ) -> Outage:
        return rabbitmq

    @pytest.fixture
    def linked(self, rabbitmq: RabbitMQ, options: str) -> Iterator[Linked]:
        proxy = Proxy(rabbitmq.port)
        proxy.start()
        yield lambda: RabbitBackplane(f"{rabbitmq.url_at(proxy.port)}?{options}"), proxy
        proxy.close()
