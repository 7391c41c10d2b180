"""The RabbitMQ engine against the backplane's contract: Debian 12's server, and a 4."""

import itertools
from collections.abc import Iterator

import pytest
from tests.support.engines import RabbitMQ

from postroom.backplane.rabbitmq import RabbitBackplane
from postroom.testing.contracts.backplane import BackplaneContract, Linked, Make
from postroom.testing.contracts.faults import Outage
from postroom.testing.links import Links

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
        with Links(f"{broker.url}?{options}") as links:
            yield lambda: RabbitBackplane(links.url), links


class TestRabbit4Backplane(TestRabbitBackplane):
    engine = "RabbitMQ 4"

    @pytest.fixture
    def broker(self, rabbitmq4: RabbitMQ) -> RabbitMQ:
        return rabbitmq4
