"""The Kafka engine where the servers demand something: TLS, a user, a user of few rights."""

import asyncio
import itertools
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
from structlog.testing import capture_logs
from tests.integration.test_redis_access import talks
from tests.support.cluster import Nodes
from tests.support.deadline import DEADLINE
from tests.support.kafka import Kafka
from tests.support.kafka_admin import Operator, operating
from tests.support.server import Server

from postroom.backplane.base import Subject
from postroom.backplane.kafka import KafkaBackplane
from postroom.backplane.recovery import reason_of
from postroom.errors import BackplaneUnavailable, ConfigurationError
from postroom.testing.contracts.backplane import Peer, running

ALL = Subject("all")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
GUIDE = (Path(__file__).parents[2] / "docs/how-to/choose-an-engine.md").read_text()
_names = itertools.count(1)


def documented(*, made_by: str) -> list[str]:
    """The operations that the guide gives to a user, where the topic is made by `nodes` or by an `operator`."""
    node, operator = re.findall(r"^kafka-acls\.sh .*--topic postroom$", GUIDE, re.MULTILINE)
    return re.findall(r"--operation (\w+)", {"nodes": node, "operator": operator}[made_by])


@pytest.fixture
def topic() -> str:
    return f"guarded-{next(_names)}"


@pytest.fixture
async def operator(kafka: Kafka) -> AsyncIterator[Operator]:
    async with operating(kafka) as operator:
        yield operator


@pytest.fixture
def url(kafka: Kafka, topic: str) -> str:
    """As `ben`, who may do nothing yet."""
    return f"kafka://ben:s3cr3t@127.0.0.1:{kafka.sasl_port}?prefix={topic}&timeout=2&partitions=2"


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Peer]:
    """An engine that has heard itself."""
    async with running(KafkaBackplane(url)) as peer:
        await peer.backplane.subscribe([ALL])
        await peer.backplane.publish([(ALL, b"hello")])
        await peer.until(lambda: peer.of("all") == [b"hello"])
        yield peer


async def refusal(url: str) -> str:
    """What the engine ends with, instead of trying for ever."""
    before = sockets()
    with pytest.RaisesGroup(ConfigurationError, allow_unwrapped=True, flatten_subgroups=True) as caught:
        await KafkaBackplane(url).run(lambda subject, payload: None, lambda: None)
    async with asyncio.timeout(DEADLINE):  # the library ends a refused connection when it gets to it
        while sockets() > before:
            await asyncio.sleep(0.01)
    said = reason_of(caught.value)
    assert "s3cr3t" not in said
    return said


def sockets() -> int:
    return len(psutil.Process().net_connections("tcp"))


def check(folder: Path, url: str, store: str) -> tuple[int, str]:
    """What `postroom check-config --connect` says of the backplane."""
    file = folder / "postroom.toml"
    file.write_text(f'dev = true\nstore = "{store}"\nbackplane = "{url}"\n')
    command = [sys.executable, "-m", "postroom", "check-config", "--connect", "--config", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=6 * DEADLINE, check=False)
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    assert "s3cr3t" not in done.stdout + done.stderr
    return done.returncode, done.stdout.partition("\nbackplane ")[2]


async def is_told(peer: Peer, operation: str) -> None:
    """Publish until the log or the caller is told that this is not allowed."""
    option, said = f"--operation {operation}", ""
    with capture_logs() as logs:
        async with asyncio.timeout(DEADLINE):
            while option not in said:
                try:
                    await peer.backplane.publish([(ALL, b"x")])
                except BackplaneUnavailable as error:
                    said = f"{error} {logs}"
                await asyncio.sleep(0.02)


# ── who one is ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_a_user_of_the_documented_rights_comes_in_over_tls(
    kafka: Kafka, operator: Operator, topic: str, mechanism: str
) -> None:
    await operator.allow("ben", topic, *documented(made_by="nodes"))
    where = f"127.0.0.1:{kafka.safe_port}?prefix={topic}&tls=true&ca-file={kafka.certificate}&sasl={mechanism}"
    async with connected(f"kafka://ben:s3cr3t@{where}"):
        pass
    assert "SaslAuthenticationFailed" in await refusal(f"kafka://ben:wr0ng@{where}&timeout=2")


async def test_a_topic_of_an_operator_needs_fewer_rights(operator: Operator, topic: str, url: str) -> None:
    await operator.make(topic, 3)
    await operator.allow("ben", topic, *documented(made_by="operator"))
    async with connected(url):
        pass


async def test_a_mechanism_that_is_not_offered_is_said(kafka: Kafka) -> None:
    said = await refusal(
        f"kafka://ben:s3cr3t@127.0.0.1:{kafka.tls_port}?tls=true&ca-file={kafka.certificate}&timeout=2"
    )
    assert "sasl" in said.lower()


async def test_a_server_that_is_spoken_to_in_the_wrong_way_says_so(kafka: Kafka) -> None:
    for url, hint in (
        (f"kafka://127.0.0.1:{kafka.tls_port}?timeout=1", r"it may want TLS \(tls=true\), or a user"),
        (f"kafka://127.0.0.1:{kafka.sasl_port}?timeout=1", r"it may want TLS \(tls=true\), or a user"),
        (f"kafka://127.0.0.1:{kafka.port}?tls=true&ca-file={kafka.certificate}&timeout=1", "it may want no TLS"),
    ):
        with capture_logs() as logs:
            async with running(KafkaBackplane(url)) as peer:
                await peer.says_until(lambda: bool(logs), "all")
        assert re.search(hint, str(logs[0]["reason"]))


async def test_a_certificate_is_a_name(kafka: Kafka, operator: Operator, topic: str) -> None:
    files = f"ca-file={kafka.certificate}&cert-file={kafka.certificate}&key-file={kafka.key}"
    url = f"kafka://127.0.0.1:{kafka.tls_port}?prefix={topic}&tls=true&{files}"
    assert "the name in the certificate may not describe, read and write" in await refusal(url)
    await operator.allow("CN=127.0.0.1", topic, *documented(made_by="nodes"))
    async with connected(url):
        pass


async def test_a_server_that_ends_connections_after_a_while_loses_nothing(
    kafka: Kafka, operator: Operator, topic: str
) -> None:
    await operator.allow("ben", topic, *documented(made_by="nodes"))
    where = f"127.0.0.1:{kafka.safe_port}?prefix={topic}&tls=true&ca-file={kafka.certificate}&sasl=SCRAM-SHA-512"
    async with connected(f"kafka://ben:s3cr3t@{where}") as peer:
        before, sent = ports(kafka.safe_port), 0
        async with asyncio.timeout(DEADLINE):
            while before & ports(kafka.safe_port):
                await peer.backplane.publish([(ALL, b"%d" % sent)])
                sent += 1
                await asyncio.sleep(0.01)
        await peer.until(lambda: len(peer.heard) == 1 + sent)
        assert peer.interrupted_at == []


def ports(server: int) -> set[int]:
    """Our ends of the connections to this port of the server's."""
    return {
        each.laddr.port for each in psutil.Process().net_connections("tcp") if each.raddr and each.raddr.port == server
    }


async def test_a_certificate_that_nobody_knows_is_refused(kafka: Kafka) -> None:
    assert "certificate" in await refusal(f"kafka://127.0.0.1:{kafka.tls_port}?tls=true&timeout=2")


# ── what one may do ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("missing", ["Read", "Write", "Read Write"])
async def test_a_right_that_is_missing_is_said_with_the_command_that_gives_it(
    operator: Operator, topic: str, url: str, fresh_url: str, tmp_path: Path, missing: str
) -> None:
    await operator.make(topic, 2)
    await operator.allow("ben", topic, *({"Describe", "Read", "Write"} - {*missing.split()}))
    said = await refusal(url)
    assert re.findall(r"--operation (\w+)", said) == missing.split()
    assert "--allow-principal 'User:ben'" in said
    code, found = check(tmp_path, url, fresh_url)
    assert (code, re.findall(r"--operation (\w+)", found.partition("error: ")[2])) == (1, missing.split())


async def test_a_topic_that_one_may_not_see_is_said(
    operator: Operator, topic: str, url: str, fresh_url: str, tmp_path: Path
) -> None:
    await operator.make(topic, 2)
    assert "ben may not describe, read and write" in await refusal(url)
    code, found = check(tmp_path, url, fresh_url)
    assert (code, "ben may not describe" in found) == (1, True)


async def test_a_topic_that_one_may_not_make_is_said(
    operator: Operator, topic: str, url: str, fresh_url: str, tmp_path: Path
) -> None:
    await operator.allow("ben", topic, "Read", "Write")
    assert "--operation Create " in await refusal(url)
    code, found = check(tmp_path, url, fresh_url)
    assert (code, "--operation Create " in found) == (1, True)


async def test_to_check_makes_no_topic(
    operator: Operator, topic: str, url: str, fresh_url: str, tmp_path: Path
) -> None:
    await operator.allow("ben", topic, "Read", "Write", "Create")
    code, found = check(tmp_path, url, fresh_url)
    assert (code, "advice: there is no topic" in found) == (0, True)
    assert await operator.settings(topic) == {}


async def test_to_check_says_what_is_unwise(
    operator: Operator, topic: str, fresh_url: str, kafka: Kafka, tmp_path: Path
) -> None:
    unwise = {"cleanup.policy": "compact", "retention.ms": "-1", "max.message.bytes": "50000"}
    await operator.make(topic, 2, unwise)
    code, found = check(tmp_path, f"{kafka.url}?prefix={topic}", fresh_url)
    assert code == 0
    for name in (*unwise, "message.timestamp.type"):
        assert f"advice: {name} of the topic {topic} is " in found


async def test_a_right_that_is_taken_away_for_a_while_is_missed(operator: Operator, topic: str, url: str) -> None:
    await operator.allow("ben", topic, *documented(made_by="nodes"))
    async with connected(url) as peer:
        for operation in ("Read", "Write"):
            await operator.forbid("ben", topic, operation)
            await is_told(peer, operation)
            await operator.relent("ben", topic, operation)
            await peer.says_until(lambda: ("all", operation.encode()) in peer.heard, "all", operation.encode())  # noqa: B023


async def test_two_nodes_do_with_the_documented_rights(
    make_nodes: Callable[..., Nodes], kafka: Kafka, operator: Operator, topic: str, fresh_url: str
) -> None:
    await operator.allow("ben", topic, *documented(made_by="nodes"))
    safe = f"tls=true&ca-file={kafka.certificate}&sasl=SCRAM-SHA-512"
    carrier = f"kafka://ben:s3cr3t@127.0.0.1:{kafka.safe_port}?prefix={topic}&{safe}"
    nodes = make_nodes(fresh_url, backplane=carrier)
    await talks(nodes)
    assert nodes.stop() == 0


@pytest.fixture
def node(tmp_path: Path, fresh_url: str, url: str) -> Iterator[Server]:
    server = Server(tmp_path, store=fresh_url, options=["--node-id", "n1", "--backplane", url])
    yield server
    server.close()


async def test_a_node_that_is_refused_ends_with_the_sentence(operator: Operator, topic: str, node: Server) -> None:
    await operator.make(topic, 2)
    await operator.allow("ben", topic, "Read")
    node.launch()
    assert node.process.wait(3 * DEADLINE) == 2
    assert node.output(1).startswith(f"postroom: the backplane refuses this node: ben may not write the topic {topic}")
    assert "s3cr3t" not in node.output()
