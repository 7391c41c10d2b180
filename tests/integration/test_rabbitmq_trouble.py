"""The RabbitMQ engine where the server demands something: TLS, credentials, a virtual host, permissions."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.support.certificates import self_signed
from tests.support.engines import RabbitMQ
from tests.support.valkey import quiet_port

from postroom.backplane.base import Subject
from postroom.backplane.rabbitmq import RabbitBackplane
from postroom.errors import BackplaneUnavailable, ConfigurationError
from postroom.testing.contracts.backplane import Peer, running

ALL = Subject("all")


class Strict(RabbitMQ):
    """Has one user, `ann`, who may do what the docs say, in the virtual host `rooms`, with TLS at `tls_port`."""

    def __init__(self, folder: Path) -> None:
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
{permissions}
""",
        )


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strict]:
    with Strict(tmp_path_factory.mktemp("strict")) as server:
        yield server


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Peer]:
    """An engine that has heard itself."""
    async with running(RabbitBackplane(url)) as peer:
        await peer.backplane.subscribe([ALL, Subject("node.n1"), Subject("user.ann"), Subject("topic./topic/x")])
        await peer.backplane.publish(
            [(Subject(name), b"x") for name in ("all", "node.n1", "user.ann", "topic./topic/x")]
        )
        await peer.until(lambda: len(peer.heard) == 4)
        yield peer


async def reason(url: str) -> str:
    """Why the engine does not come up."""
    with capture_logs() as logs:
        async with running(RabbitBackplane(f"{url}timeout=2")) as peer:
            with pytest.raises(BackplaneUnavailable):
                await peer.backplane.subscribe([ALL])
    return " ".join(str(each.get("reason")) for each in logs)


async def test_credentials_and_virtual_host_stand_in_the_url(strict: Strict) -> None:
    async with connected(f"amqp://ann:s3cr3t%2F%40@127.0.0.1:{strict.port}/rooms"):
        pass


async def test_a_wrong_password_is_said(strict: Strict) -> None:
    said = await reason(f"amqp://ann:wr0ng@127.0.0.1:{strict.port}/rooms?")
    assert "ACCESS_REFUSED" in said
    assert "wr0ng" not in said


async def test_a_virtual_host_that_is_not_there_is_said(strict: Strict) -> None:
    assert "no-rooms" in await reason(f"amqp://ann:s3cr3t%2F%40@127.0.0.1:{strict.port}/no-rooms?")


async def test_what_may_not_be_declared_is_said(strict: Strict) -> None:
    said = await reason(f"amqp://ann:s3cr3t%2F%40@127.0.0.1:{strict.port}/rooms?prefix=other&")
    assert "other.direct" in said


async def test_tls_is_verified(strict: Strict) -> None:
    address = f"amqps://ann:s3cr3t%2F%40@127.0.0.1:{strict.tls_port}/rooms?"
    async with connected(f"{address}ca-file={strict.certificate}"):
        pass
    assert "certificate verify failed" in await reason(address)


async def test_any_server_of_the_url_will_do(rabbitmq: RabbitMQ) -> None:
    nobody = quiet_port()
    for order in (f"127.0.0.1:{nobody},127.0.0.1:{rabbitmq.port}", f"127.0.0.1:{rabbitmq.port},127.0.0.1:{nobody}"):
        async with connected(f"amqp://{order}?prefix=any"):
            pass


async def test_prefixes_keep_clusters_apart(rabbitmq: RabbitMQ) -> None:
    async with connected(f"{rabbitmq.url}?prefix=one") as one, connected(f"{rabbitmq.url}?prefix=two") as two:
        await one.backplane.publish([(ALL, b"mine")])
        await one.until(lambda: b"mine" in one.of("all"))
        await two.backplane.publish([(ALL, b"end")])
        await two.until(lambda: b"end" in two.of("all"))
        assert two.of("all") == [b"x", b"end"]


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
