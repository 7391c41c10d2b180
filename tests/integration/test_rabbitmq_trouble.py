"""The RabbitMQ engine where the server demands something (TLS, credentials, a virtual host, permissions), takes less,
or takes nothing; on Debian 12's server and on a 4.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.support.backplanes import ALL, connected, reason
from tests.support.certificates import self_signed
from tests.support.engines import RabbitMQ
from tests.support.valkey import quiet_port

from postroom.backplane.base import Subject
from postroom.backplane.rabbitmq import RabbitBackplane, remarks
from postroom.errors import BackplaneUnavailable, ConfigurationError

KINDS = [ALL, Subject("node.n1"), Subject("user.ann"), Subject("topic./topic/x")]
BOUND = 100_000


class Strict(RabbitMQ):
    """Has one user, `ann`, who may do what the docs say, in the virtual host `rooms`, with TLS at `tls_port`, and takes
    no message larger than BOUND."""

    def __init__(self, folder: Path, *, version: int | None) -> None:
        folder.mkdir(exist_ok=True)
        self.certificate, key = self_signed(folder)
        self.tls_port = quiet_port()
        permissions = "\n".join(
            rf"default_permissions.{verb} = ^postroom\..*" for verb in ("configure", "write", "read")
        )
        super().__init__(
            folder,
            config=f"""
listeners.ssl.1 = 127.0.0.1:{self.tls_port}
ssl_options.cacertfile = {self.certificate}
ssl_options.certfile = {self.certificate}
ssl_options.keyfile = {key}
default_user = ann
default_pass = s3cr3t/@
default_vhost = rooms
max_message_size = {BOUND}
{permissions}
""",
            version=version,
        )

    def url_as(self, credentials: str = "ann:s3cr3t%2F%40", room: str = "rooms") -> str:
        """Its URL for somebody."""
        return f"amqp://{credentials}@127.0.0.1:{self.port}/{room}?timeout=2"


@pytest.fixture(scope="module", params=["rabbitmq", "rabbitmq4"])
def server(request: pytest.FixtureRequest) -> RabbitMQ:
    """Takes all; who hurts it mends it."""
    server: RabbitMQ = request.getfixturevalue(request.param)
    return server


@pytest.fixture(scope="module")
def strict(server: RabbitMQ, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strict]:
    with Strict(tmp_path_factory.mktemp("strict"), version=server.version) as strict:
        yield strict


async def test_credentials_and_virtual_host_stand_in_the_url(strict: Strict) -> None:
    async with connected(RabbitBackplane(strict.url_as()), KINDS):
        pass


async def test_a_wrong_password_is_said(strict: Strict) -> None:
    said = await reason(RabbitBackplane(strict.url_as("ann:wr0ng")))
    assert "ACCESS_REFUSED" in said
    assert "wr0ng" not in said


async def test_a_virtual_host_that_is_not_there_is_said(strict: Strict) -> None:
    assert "no-rooms" in await reason(RabbitBackplane(strict.url_as(room="no-rooms")))


async def test_what_may_not_be_declared_is_said(strict: Strict) -> None:
    assert "other.direct" in await reason(RabbitBackplane(f"{strict.url_as()}&prefix=other"))


async def test_tls_is_verified(strict: Strict) -> None:
    address = f"amqps://ann:s3cr3t%2F%40@127.0.0.1:{strict.tls_port}/rooms?timeout=2"
    async with connected(RabbitBackplane(f"{address}&ca-file={strict.certificate}"), KINDS):
        pass
    assert "certificate verify failed" in await reason(RabbitBackplane(address))


async def test_the_servers_bound_on_messages_is_learnt_from_its_refusal(strict: Strict) -> None:
    async with connected(RabbitBackplane(strict.url_as())) as peer:
        with pytest.raises(BackplaneUnavailable, match=f"larger than configured max size {BOUND}"):
            await peer.backplane.publish([(ALL, bytes(BOUND + 1))])
        await peer.until(lambda: bool(peer.interrupted_at))
        assert peer.backplane.traits.max_payload_bytes == BOUND
        await peer.backplane.publish([(ALL, bytes(BOUND))])
        await peer.until(lambda: peer.of("all") == [b"hello", bytes(BOUND)])


async def test_a_check_makes_nothing(server: RabbitMQ) -> None:
    engine = RabbitBackplane(f"{server.url}?prefix=checked")
    for _ in range(2):
        (finding,) = await engine.check()
        assert (finding.grave, finding.last) == (False, True)
        assert "checked.direct and checked.topic are not there" in finding.text
    async with connected(RabbitBackplane(f"{server.url}?prefix=checked")) as peer:
        assert await engine.check() == []
        assert peer.interrupted_at == []


async def test_a_check_says_what_is_missing(strict: Strict) -> None:
    async with connected(RabbitBackplane(strict.url_as())):
        assert await RabbitBackplane(strict.url_as()).check() == []
    for url, missing in {
        strict.url_as("ann:wr0ng"): "ACCESS_REFUSED",
        strict.url_as(room="no-rooms"): "virtual host 'no-rooms'",
        f"{strict.url_as()}&prefix=other": "access to exchange 'other.direct'",
        f"amqp://127.0.0.1:{quiet_port()}": "no connection",
    }.items():
        with pytest.raises(BackplaneUnavailable, match=missing):
            await RabbitBackplane(url).check()


async def test_an_alarm_is_said_and_outlived(server: RabbitMQ) -> None:
    url = f"{server.url}?prefix=alarm&timeout=2"
    async with connected(RabbitBackplane(url)) as one, connected(RabbitBackplane(url)) as two:
        await asyncio.to_thread(server.control, "set_vm_memory_high_watermark", "0.000001")
        try:
            with capture_logs() as logs:
                with pytest.raises(BackplaneUnavailable):
                    await two.backplane.publish([(ALL, b"not now")])
                await two.until(lambda: bool(two.interrupted_at))
            assert any("short of memory or disk" in str(each.get("reason")) for each in logs)
            with pytest.raises(BackplaneUnavailable, match="short of memory or disk"):
                await RabbitBackplane(url).check()
        finally:
            await asyncio.to_thread(server.control, "set_vm_memory_high_watermark", "0.4")
        await two.says_until(lambda: b"again" in one.of("all"), "all", b"again")


async def test_a_node_that_does_not_keep_up_loses_the_oldest(server: RabbitMQ) -> None:
    url = f"{server.url}?prefix=slow&timeout=10&queue-bytes={1 << 20}"
    async with connected(RabbitBackplane(url)) as slow, connected(RabbitBackplane(url)) as quick:
        transport = slow.backplane._session._wires._transports[-1]  # type: ignore[attr-defined]
        transport.pause_reading()
        for n in range(100):
            await quick.backplane.publish([(ALL, b"%d" % n + bytes(100_000)) for n in range(8 * n, 8 * n + 8)])
        transport.resume_reading()
        await slow.until(lambda: slow.heard[-1][1].startswith(b"799\0"))
    heard = [int(payload.partition(b"\0")[0]) for payload in slow.of("all")[2:]]
    assert heard == sorted(set(heard))
    assert len(heard) < 800
    assert slow.interrupted_at == []


def test_a_version_that_is_not_tested_is_told() -> None:
    for version in ("3.10.0", "3.13.7", "4.0.5", "4.1.0-rc.1", "10.0"):
        assert remarks({"product": "RabbitMQ", "version": version}) == []
    (old,) = remarks({"product": "RabbitMQ", "version": "3.9.29"})
    (other,) = remarks({"product": "LavinMQ", "version": "2.1.0"})
    assert (old.grave, other.grave) == (False, False)
    assert "3.9.29 is older than 3.10" in old.text
    assert "LavinMQ 2.1.0" in other.text


async def test_who_comes_does_not_wait_for_all_who_have_left(rabbitmq: RabbitMQ) -> None:
    crowd = [Subject(f"user.{n}") for n in range(2000)]
    async with connected(RabbitBackplane(f"{rabbitmq.url}?prefix=crowd")) as one:
        await one.backplane.subscribe(crowd)
        async with asyncio.TaskGroup() as tasks:
            leaving = tasks.create_task(one.backplane.unsubscribe(crowd))
            await asyncio.sleep(0)  # it begins
            await one.backplane.subscribe([Subject("user.new")])
            assert not leaving.done()
            await one.backplane.publish([(Subject("user.new"), b"welcome")])
            await one.until(lambda: one.of("user.new") == [b"welcome"])
        await one.backplane.publish([(crowd[0], b"nobody"), (crowd[-1], b"nobody"), (ALL, b"end")])
        await one.until(lambda: b"end" in one.of("all"))
        assert one.of(crowd[0]) == one.of(crowd[-1]) == []


async def test_any_server_of_the_url_will_do(rabbitmq: RabbitMQ) -> None:
    nobody = quiet_port()
    for order in (f"127.0.0.1:{nobody},127.0.0.1:{rabbitmq.port}", f"127.0.0.1:{rabbitmq.port},127.0.0.1:{nobody}"):
        async with connected(RabbitBackplane(f"amqp://{order}?prefix=any")):
            pass


async def test_prefixes_keep_clusters_apart(rabbitmq: RabbitMQ) -> None:
    first, second = (RabbitBackplane(f"{rabbitmq.url}?prefix={prefix}") for prefix in ("one", "two"))
    async with connected(first) as one, connected(second) as two:
        await one.backplane.publish([(ALL, b"mine")])
        await one.until(lambda: b"mine" in one.of("all"))
        await two.backplane.publish([(ALL, b"end")])
        await two.until(lambda: b"end" in two.of("all"))
        assert two.of("all") == [b"hello", b"end"]


@pytest.mark.parametrize(
    "url",
    [
        "amqp://",
        "amqp://host:port",
        "amqp://ann:s3cr3t@host?prefix=a.b",
        "amqp://ann:s3cr3t@host?queue-bytes=1",
        "amqps://ann:s3cr3t@host?ca-file=/does/not/exist",
    ],
)
def test_a_wrong_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RabbitBackplane(url)
    assert "s3cr3t" not in str(caught.value)
