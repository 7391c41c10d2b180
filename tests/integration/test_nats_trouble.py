"""The NATS engine where the server demands something: TLS, credentials, permissions, small payloads."""

from pathlib import Path

import pytest
from tests.support.certificates import self_signed
from tests.support.engines import Nats
from tests.support.nats_peer import ALL, connected

from postroom.backplane.base import Subject
from postroom.backplane.nats import NatsBackplane
from postroom.errors import BackplaneUnavailable, ConfigurationError
from postroom.testing.contracts.backplane import running


async def refused(url: str) -> str:
    """What a subscription is told."""
    async with running(NatsBackplane(f"{url}timeout=1")) as peer:
        with pytest.raises(BackplaneUnavailable) as caught:
            await peer.backplane.subscribe([ALL])
        return str(caught.value)


async def test_tls_is_verified(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    with Nats(tmp_path, config=f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}') as server:
        async with connected(f"tls://127.0.0.1:{server.port}?ca-file={certificate}"):
            pass
        assert "certificate verify failed" in await logged_reason(f"tls://127.0.0.1:{server.port}?")


async def test_a_tls_url_gives_no_secret_to_a_server_without_tls(nats: Nats) -> None:
    assert "secure connection" in await logged_reason(f"tls://ann:s3cr3t@127.0.0.1:{nats.port}?")


async def logged_reason(url: str) -> str:
    """Why the engine does not come up."""
    from structlog.testing import capture_logs

    with capture_logs() as logs:
        await refused(url)
    return " ".join(str(each.get("reason")) for each in logs).lower()


async def test_what_may_not_be_subscribed_is_said(tmp_path: Path) -> None:
    config = """authorization { users: [ { user: ann, password: x, permissions: {
        publish: "postroom.>", subscribe: ["postroom.echo.>", "postroom.all"] } } ] }"""
    with Nats(tmp_path, config=config) as server:
        async with connected(f"nats://ann:x@127.0.0.1:{server.port}?timeout=2") as peer:
            with pytest.raises(BackplaneUnavailable, match=r"postroom\.node\.n1"):
                await peer.backplane.subscribe([Subject("node.n1")])


async def test_what_may_not_be_published_is_said(tmp_path: Path) -> None:
    config = """authorization { users: [ { user: ann, password: x, permissions: {
        publish: ["postroom.echo.>", "postroom.all"], subscribe: "postroom.>" } } ] }"""
    with Nats(tmp_path, config=config) as server:
        async with connected(f"nats://ann:x@127.0.0.1:{server.port}?timeout=2") as peer:
            with pytest.raises(BackplaneUnavailable, match=r"postroom\.node\.n1"):
                await peer.backplane.publish([(Subject("node.n1"), b"x")])
            await peer.backplane.publish([(ALL, b"yes")])
            await peer.until(lambda: b"yes" in peer.of("all"))


async def test_the_servers_bound_on_payloads_is_the_engines(tmp_path: Path) -> None:
    with Nats(tmp_path, config="max_payload: 4096") as server:
        async with connected(server.url) as peer:
            assert peer.backplane.traits.max_payload_bytes == 4096


async def test_another_server_of_the_url_takes_over(tmp_path: Path) -> None:
    with Nats(tmp_path / "one") as one, Nats(tmp_path / "two") as two:
        url = f"nats://127.0.0.1:{one.port},127.0.0.1:{two.port}?connect-timeout=1"
        async with connected(url) as peer:
            one.kill()
            peer.heard.clear()
            await peer.says_until(lambda: bool(peer.heard), "all")


async def test_a_node_that_does_not_read_is_cut_off_and_told(tmp_path: Path) -> None:
    with Nats(tmp_path, config='max_pending: 1048576\nwrite_deadline: "1s"') as server:
        async with connected(server.url) as slow, connected(server.url) as quick:
            quick.heard.clear()
            link = slow.backplane._link  # type: ignore[attr-defined]
            link._transport._io_writer.transport.pause_reading()
            await quick.says_until(lambda: len(quick.heard) > 40, "all", bytes(900_000))
            await slow.until(lambda: len(slow.interrupted_at) == 1)


async def test_prefixes_keep_clusters_apart(nats: Nats) -> None:
    async with connected(f"{nats.url}?prefix=one") as one, connected(f"{nats.url}?prefix=two") as two:
        await one.backplane.publish([(ALL, b"mine")])
        await one.until(lambda: b"mine" in one.of("all"))
        await two.backplane.publish([(ALL, b"end")])
        await two.until(lambda: b"end" in two.of("all"))
        assert two.of("all") == [b"hello", b"end"]


@pytest.mark.parametrize(
    "url",
    [
        "nats://",
        "nats://host:port",
        "nats://ann:s3cr3t@host/path",
        "nats://ann:s3cr3t@host?prefix=a.b",
        "nats://ann:s3cr3t@host?timeout=0",
        "nats://ann:s3cr3t@host?no-such=1",
        "tls://ann:s3cr3t@host?ca-file=/does/not/exist",
    ],
)
def test_a_wrong_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        NatsBackplane(url)
    assert "s3cr3t" not in str(caught.value)
