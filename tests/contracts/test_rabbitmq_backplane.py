"""The RabbitMQ engine against the backplane's contract: Debian 12's server, and a 4."""

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
    engine = "RabbitMQ 3.10"

    @pytest.fixture
    def broker(self, rabbitmq: RabbitMQ) -> RabbitMQ:
        return rabbitmq

    @pytest.fixture
    def make(self, broker: RabbitMQ, options: str) -> Make:
        return lambda: RabbitBackplane(f"{broker.url}?{options}")

    @pytest.fixture
    def outage(self, broker: RabbitMQ) -> Outage:
        return broker

    @pytest.fixture
    def linked(self, broker: RabbitMQ, options: str) -> Iterator[Linked]:
        proxy = Proxy(broker.port)
        proxy.start()
        yield lambda: RabbitBackplane(f"{broker.url_at(proxy.port)}?{options}"), proxy
        proxy.close()


class TestRabbit4Backplane(TestRabbitBackplane):
    engine = "RabbitMQ 4"

    @pytest.fixture
    def broker(self, rabbitmq4: RabbitMQ) -> RabbitMQ:
        return rabbitmq4
