"""The Kafka engine where the server demands something: SASL, TLS; and a topic that was made by somebody else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from structlog.testing import capture_logs
from tests.support.kafka import Kafka

from postroom.backplane.base import Subject
from postroom.backplane.kafka import KafkaBackplane
from postroom.errors import BackplaneUnavailable, ConfigurationError
from postroom.testing.contracts.backplane import Peer, running

ALL = Subject("all")


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Peer]:
    """An engine that has heard itself."""
    async with running(KafkaBackplane(url)) as peer:
        await peer.backplane.subscribe([ALL])
        await peer.backplane.publish([(ALL, b"hello")])
        await peer.until(lambda: peer.of("all") == [b"hello"])
        yield peer


async def reason(url: str) -> str:
    """Why the engine does not come up."""
    with capture_logs() as logs:
        async with running(KafkaBackplane(url)) as peer:
            with pytest.raises(BackplaneUnavailable):
                await peer.backplane.subscribe([ALL])
    return " ".join(str(each.get("reason")) for each in logs)


async def test_sasl_credentials_stand_in_the_url(kafka: Kafka) -> None:
    async with connected(f"kafka://ann:s3cr3t@127.0.0.1:{kafka.sasl_port}?prefix=sasl"):
        pass
    said = await reason(f"kafka://ann:wr0ng@127.0.0.1:{kafka.sasl_port}?prefix=sasl&timeout=2")
    assert said
    assert "wr0ng" not in said


async def test_tls_is_verified(kafka: Kafka) -> None:
    async with connected(f"kafka://127.0.0.1:{kafka.tls_port}?prefix=tls&tls=true&ca-file={kafka.certificate}"):
        pass
    assert await reason(f"kafka://127.0.0.1:{kafka.tls_port}?prefix=tls&tls=true&timeout=2")


async def test_the_partitions_are_those_of_the_topic_that_is_there(kafka: Kafka) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=f"127.0.0.1:{kafka.port}")
    await admin.start()
    await admin.create_topics([NewTopic("made-before", 3, 1)])
    await admin.close()
    url = f"{kafka.url}?prefix=made-before"
    async with connected(f"{url}&partitions=7") as one, connected(f"{url}&partitions=16") as two:
        names = [Subject(f"user.{n}") for n in range(50)]
        await two.backplane.subscribe(names)
        await one.backplane.publish([(name, b"x") for name in names])
        await two.until(lambda: all(two.of(name) for name in names))


async def test_a_topic_that_cannot_be_made_is_said(kafka: Kafka) -> None:
    said = await reason(f"{kafka.url}?prefix=too-many-copies&replication=3&timeout=2")
    assert "there is no topic too-many-copies, and it cannot be made" in said


@pytest.mark.parametrize(
    "url",
    [
        "kafka://",
        "kafka://ann:s3cr3t@host/path",
        "kafka://ann:s3cr3t@host?sasl=MAGIC",
        "kafka://ann@host",
        "kafka://ann:s3cr3t@host?ca-file=/x",
        "kafka://ann:s3cr3t@host?tls=true&ca-file=/does/not/exist",
    ],
)
def test_a_wrong_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        KafkaBackplane(url)
    assert "s3cr3t" not in str(caught.value)
