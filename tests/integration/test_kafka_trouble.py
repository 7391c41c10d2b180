"""The Kafka engine where operators and servers do what they do: topics change, servers end, publishes are refused."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from structlog.testing import capture_logs
from tests.support.client import StompClient
from tests.support.cluster import Nodes
from tests.support.deadline import DEADLINE
from tests.support.kafka import Kafka
from tests.support.kafka_admin import Operator, operating
from tests.support.kafka_proxy import RefusingProxy
from tests.support.server import free_port

from postroom.backplane.base import Subject
from postroom.backplane.kafka import KafkaBackplane
from postroom.backplane.kafka_topic import let_go
from postroom.errors import BackplaneUnavailable, ConfigurationError
from postroom.testing.contracts.backplane import Peer, running

ALL = Subject("all")
INBOX = "/user/queue/inbox"
MANY = [Subject(f"user.{n}") for n in range(50)]
"""In all partitions."""

CORRUPT, NOT_THE_LEADER, TIMED_OUT, NOT_ENOUGH_REPLICAS = 2, 6, 7, 19
INVALID_TIMESTAMP, OUT_OF_ORDER, FENCED, UNKNOWN_PRODUCER = 32, 45, 47, 59

_names = itertools.count(1)


@pytest.fixture
def topic() -> str:
    return f"trouble-{next(_names)}"


@pytest.fixture
async def operator(kafka: Kafka) -> AsyncIterator[Operator]:
    async with operating(kafka) as operator:
        yield operator


@pytest.fixture
def way(kafka: Kafka) -> Iterator[RefusingProxy]:
    """One of an engine's own to the server."""
    proxy = kafka.proxy(0)
    proxy.start()
    yield proxy
    proxy.close()


@asynccontextmanager
async def connected(url: str, *subjects: Subject) -> AsyncIterator[Peer]:
    """An engine that has heard itself."""
    async with running(KafkaBackplane(url)) as peer:
        await peer.backplane.subscribe([ALL, *subjects])
        await peer.backplane.publish([(ALL, b"hello")])
        await peer.until(lambda: peer.of("all") == [b"hello"])
        yield peer


async def hears_all(peer: Peer, speaker: Peer, mark: bytes) -> None:
    """Return once what `speaker` publishes to each of MANY has reached `peer`."""
    async with asyncio.timeout(2 * DEADLINE):
        while missing := [(subject, mark) for subject in MANY if (subject, mark) not in peer.heard]:
            with suppress(BackplaneUnavailable):
                await speaker.backplane.publish(missing)
            await asyncio.sleep(0.05)


async def is_cut_off(peer: Peer) -> None:
    """Return once it knows that it is."""
    async with asyncio.timeout(DEADLINE):
        with suppress(BackplaneUnavailable):
            while True:
                await peer.backplane.publish([(ALL, b"lost")])
                await asyncio.sleep(0.02)


async def reason(url: str) -> str:
    """Why the engine does not come up."""
    with capture_logs() as logs:
        async with running(KafkaBackplane(url)) as peer:
            await peer.says_until(lambda: bool(logs), "all")
    return str(logs[0]["reason"])


# ── the topic ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_topic_is_made_to_be_read_at_once_and_forgotten(kafka: Kafka, operator: Operator, topic: str) -> None:
    async with connected(f"{kafka.url}?prefix={topic}"):
        settings = await operator.settings(topic)
    assert {name: settings[name] for name in ("retention.ms", "cleanup.policy", "message.timestamp.type")} == {
        "retention.ms": "600000",
        "cleanup.policy": "delete",
        "message.timestamp.type": "LogAppendTime",
    }


async def test_the_partitions_are_those_of_the_topic_that_is_there(
    kafka: Kafka, operator: Operator, topic: str
) -> None:
    await operator.make(topic, 3)
    url = f"{kafka.url}?prefix={topic}"
    async with connected(f"{url}&partitions=7") as one, connected(f"{url}&partitions=16") as two:
        await two.backplane.subscribe(MANY)
        await one.backplane.publish([(name, b"x") for name in MANY])
        await two.until(lambda: all(two.of(name) for name in MANY))


async def test_a_topic_that_cannot_be_made_is_said(kafka: Kafka) -> None:
    said = await reason(f"{kafka.url}?prefix=too-many-copies&replication=3&timeout=2")
    assert "there is no topic too-many-copies, and it cannot be made" in said


async def test_a_topic_that_takes_nothing_is_said(kafka: Kafka, topic: str, way: RefusingProxy) -> None:
    way.refuse_with(NOT_ENOUGH_REPLICAS, times=1_000_000)
    assert "min.insync.replicas" in await reason(f"{kafka.url_at(way.port)}?prefix={topic}&timeout=1")


async def test_nodes_follow_a_topic_that_grows(kafka: Kafka, operator: Operator, topic: str) -> None:
    await operator.make(topic, 2)
    url = f"{kafka.url}?prefix={topic}&timeout=2"
    async with connected(url, *MANY) as one, connected(url, *MANY) as two:
        await operator.grow(topic, 7)
        for peer in (one, two):
            await peer.until(lambda: len(peer.interrupted_at) == 1)  # noqa: B023 (called at once)
        async with connected(url, *MANY) as late:
            for peer, speaker in ((one, late), (two, one), (late, two)):
                await hears_all(peer, speaker, b"after")


async def test_nodes_outlive_a_topic_that_is_deleted(kafka: Kafka, operator: Operator, topic: str) -> None:
    url = f"{kafka.url}?prefix={topic}&timeout=2&partitions=2"
    async with connected(url) as one, connected(url) as two:
        await one.backplane.publish([(ALL, b"%d" % n) for n in range(50)])
        await two.until(lambda: b"49" in two.of("all"))
        await operator.delete(topic)
        await one.says_until(lambda: b"after" in two.of("all"), "all", b"after")
        await two.says_until(lambda: b"also" in one.of("all"), "all", b"also")
        assert one.interrupted_at
        assert two.interrupted_at


async def test_a_node_that_was_away_while_the_topic_was_made_anew_is_not_deaf(
    kafka: Kafka, operator: Operator, topic: str, way: RefusingProxy
) -> None:
    options = f"prefix={topic}&timeout=2&partitions=1"
    async with connected(f"{kafka.url_at(way.port)}?{options}") as one:
        await one.backplane.publish([(ALL, b"%d" % n) for n in range(50)])
        await one.until(lambda: b"49" in one.of("all"))
        way.refuse()
        await operator.delete(topic)
        await operator.make(topic, 1)
        way.heal()
        async with connected(f"{kafka.url}?{options}") as two:
            await two.says_until(lambda: b"after" in one.of("all"), "all", b"after")
        assert one.interrupted_at


async def test_what_expired_while_a_node_was_away_is_an_interruption(
    kafka: Kafka, operator: Operator, topic: str, way: RefusingProxy
) -> None:
    options = f"prefix={topic}&timeout=2&partitions=1"
    async with connected(f"{kafka.url}?{options}") as two, connected(f"{kafka.url_at(way.port)}?{options}") as one:
        way.refuse()
        await two.backplane.publish([(ALL, b"expires")])
        await operator.empty(topic, 1)
        way.heal()
        await two.says_until(lambda: b"after" in one.of("all"), "all", b"after")
        assert b"expires" not in one.of("all")
        assert one.interrupted_at[0] <= one.of("all").index(b"after")


async def test_what_was_unsubscribed_while_away_does_not_come_late(
    kafka: Kafka, topic: str, way: RefusingProxy
) -> None:
    options = f"prefix={topic}&timeout=2&partitions=64"
    near, far = f"{kafka.url}?{options}", f"{kafka.url_at(way.port)}?{options}"
    async with connected(near) as two, connected(far, Subject("user.x")) as one:
        way.refuse()
        await is_cut_off(one)
        await one.backplane.unsubscribe([Subject("user.x")])
        await two.backplane.publish([(Subject("user.x"), b"missed")])
        way.heal()
        await two.says_until(lambda: b"after" in one.of("all"), "all", b"after")
        await one.backplane.subscribe([Subject("user.x")])
        await two.says_until(lambda: b"new" in one.of("user.x"), "user.x", b"new")
        assert b"missed" not in one.of("user.x")


# ── what is published ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_topic_of_short_records_bounds_the_payload(kafka: Kafka, operator: Operator, topic: str) -> None:
    await operator.make(topic, 1, {"max.message.bytes": "100000"})
    async with connected(f"{kafka.url}?prefix={topic}") as one:
        largest = one.backplane.traits.max_payload_bytes
        assert 50_000 < largest < 100_000
        batch = [(ALL, b"a" * largest), (ALL, b"b" * largest), *[(ALL, b"c" * 1000)] * 300]
        await one.backplane.publish(batch)
        await one.until(lambda: len(one.heard) == 1 + len(batch))
        assert one.interrupted_at == []


async def test_a_bound_that_one_may_not_know_is_learned(kafka: Kafka, operator: Operator, topic: str) -> None:
    await operator.make(topic, 1, {"max.message.bytes": "100000"})
    await operator.allow("ben", topic, "Read", "Write")
    async with connected(f"kafka://ben:s3cr3t@127.0.0.1:{kafka.sasl_port}?prefix={topic}&timeout=2") as one:
        assert one.backplane.traits.max_payload_bytes == 1_000_000
        await one.says_until(lambda: one.backplane.traits.max_payload_bytes < 100_000, "all", b"x" * 200_000)
        large = b"y" * one.backplane.traits.max_payload_bytes
        await one.says_until(lambda: large in one.of("all"), "all", large)


@pytest.mark.parametrize("code", [CORRUPT, OUT_OF_ORDER, FENCED, UNKNOWN_PRODUCER, INVALID_TIMESTAMP])
async def test_a_publish_that_is_refused_is_told_and_the_next_goes(
    kafka: Kafka, topic: str, way: RefusingProxy, code: int
) -> None:
    async with connected(f"{kafka.url_at(way.port)}?prefix={topic}&timeout=2") as one:
        way.refuse_with(code)
        with pytest.raises(BackplaneUnavailable) as caught:
            await one.backplane.publish([(ALL, b"refused")])
        assert ("set its clock" in str(caught.value)) is (code == INVALID_TIMESTAMP)
        await one.says_until(lambda: b"next" in one.of("all"), "all", b"next")
        assert len(one.interrupted_at) == 1


@pytest.mark.parametrize("code", [NOT_THE_LEADER, TIMED_OUT, NOT_ENOUGH_REPLICAS])
async def test_a_publish_that_has_to_be_repeated_arrives_once(
    kafka: Kafka, topic: str, way: RefusingProxy, code: int
) -> None:
    async with connected(f"{kafka.url_at(way.port)}?prefix={topic}&timeout=2") as one:
        way.refuse_with(code, times=2)
        await one.backplane.publish([(ALL, b"1"), (ALL, b"2")])
        await one.backplane.publish([(ALL, b"3")])
        await one.until(lambda: b"3" in one.of("all"))
        assert one.of("all") == [b"hello", b"1", b"2", b"3"]
        assert one.interrupted_at == []


async def test_a_long_message_gets_there_where_the_topic_takes_short_records(
    make_nodes: Callable[..., Nodes], kafka: Kafka, operator: Operator, topic: str, fresh_url: str
) -> None:
    await operator.make(topic, 2, {"max.message.bytes": "20000"})
    nodes = make_nodes(fresh_url, backplane=f"{kafka.url}?prefix={topic}&timeout=2")
    one, two = nodes.nodes
    async with await StompClient.connect(one, "ann") as ann, await StompClient.connect(two, "ben") as ben:
        await ben.subscribe(INBOX)
        texts = [letter * 30_000 for letter in "abc"]
        for text in texts:
            await ann.send("/user/ben/queue/inbox", text)
        assert [(await ben.message()).text for _ in texts] == texts


# ── the servers ───────────────────────────────────────────────────────────────────────────────────────────


async def test_a_server_of_the_url_may_be_down(kafka: Kafka, topic: str) -> None:
    async with connected(f"kafka://127.0.0.1:{free_port()},127.0.0.1:{kafka.port}?prefix={topic}"):
        pass


async def test_nodes_go_on_when_one_of_two_servers_is_killed(tmp_path: Path) -> None:
    with Kafka(tmp_path / "one") as first, Kafka(tmp_path / "two", beside=first) as second:
        url = f"kafka://127.0.0.1:{second.port},127.0.0.1:{first.port}?timeout=2"
        async with operating(first) as operator:
            await operator.see(2)
        async with connected(url, *MANY) as one, connected(url, *MANY) as two:
            await hears_all(two, one, b"before")
            second.kill()
            await hears_all(two, one, b"without")
            await hears_all(one, two, b"without")


# ── the URL ───────────────────────────────────────────────────────────────────────────────────────────────


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


async def test_what_a_client_was_still_opening_when_it_was_let_go_is_closed(kafka: Kafka) -> None:
    client = AIOKafkaClient(bootstrap_servers=f"127.0.0.1:{kafka.port}")
    await client.bootstrap()
    (broker,) = client.cluster.brokers()
    async with asyncio.TaskGroup() as tasks:
        opening = tasks.create_task(client._get_conn(broker.nodeId, group=ConnectionGroup.COORDINATION))
        await asyncio.sleep(0)  # it has begun
        await let_go(client, client.close)
    connection = opening.result()
    assert connection is not None
    assert not connection.connected()
