"""The Kafka engine against the backplane's contract."""

import itertools
from collections.abc import Iterator

import pytest
from tests.support.kafka import Kafka

from postroom.backplane.kafka import KafkaBackplane
from postroom.testing.contracts.backplane import BackplaneContract, Linked, Make
from postroom.testing.contracts.faults import Outage

_names = itertools.count(1)


@pytest.fixture
def options() -> str:
    return f"prefix=t{next(_names)}&timeout=2&partitions=4"


class TestKafkaBackplane(BackplaneContract):
    engine = "Kafka"

    @pytest.fixture
    def make(self, kafka: Kafka, options: str) -> Make:
        return lambda: KafkaBackplane(f"{kafka.url}?{options}")

    @pytest.fixture
    def outage(self, kafka: Kafka) -> Outage:
        return kafka

    @pytest.fixture
    def linked(self, kafka: Kafka, options: str) -> Iterator[Linked]:
        with kafka.proxy(0) as proxy:
            yield lambda: KafkaBackplane(f"{kafka.url_at(proxy.port)}?{options}"), proxy
