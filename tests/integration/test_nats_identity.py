"""Who one is at a real NATS server: passwords, tokens, nkeys, JWTs, certificates; and what is said of wrong ones."""

import asyncio
from pathlib import Path

import nkeys
import pytest
from tests.support.certificates import self_signed
from tests.support.deadline import DEADLINE
from tests.support.engines import Nats
from tests.support.nats_accounts import Key, Operator
from tests.support.nats_peer import ALL, connected

from postroom import trial
from postroom.backplane.nats import NatsBackplane
from postroom.errors import BackplaneUnavailable, ConfigurationError
from postroom.testing.contracts.backplane import running


async def refused(url: str) -> str:
    """Why a node does not start."""
    with pytest.raises(ExceptionGroup) as caught:
        async with running(NatsBackplane(url)) as peer:
            await peer.backplane.subscribe([ALL])
    (error,) = caught.value.exceptions
    assert isinstance(error, ConfigurationError)
    return str(error)


async def found(url: str) -> list[str]:
    """What `check-config --connect` says."""
    return [*(await trial.try_backplane(url)).lines]


@pytest.mark.parametrize(
    ("config", "credentials"),
    [
        ('authorization { user: ann, password: "s@crt/x" }', "ann:s%40crt%2Fx"),
        ('authorization { token: "s3cr3t" }', "s3cr3t"),
    ],
    ids=["password", "token"],
)
async def test_credentials_stand_in_the_url(tmp_path: Path, config: str, credentials: str) -> None:
    with Nats(tmp_path, config=config) as server:
        async with connected(f"nats://{credentials}@127.0.0.1:{server.port}"):
            pass
        for wrong in ("ann:wr0ng@", "wr0ng@", ""):
            url = f"nats://{wrong}127.0.0.1:{server.port}"
            assert "refuses this user: nats: 'Authorization Violation'" in await refused(url)
            said = " ".join(await found(url))
            assert "'Authorization Violation'" in said
            assert "ann:wr0ng" not in said


async def test_an_nkey_is_read_from_its_file(tmp_path: Path) -> None:
    key, other = Key(nkeys.PREFIX_BYTE_USER), Key(nkeys.PREFIX_BYTE_USER)
    (tmp_path / "user.nk").write_bytes(key.seed + b"\n")
    (tmp_path / "other.nk").write_bytes(other.seed)
    with Nats(tmp_path, config=f"authorization {{ users: [ {{ nkey: {key.public} }} ] }}") as server:
        async with connected(f"{server.url}?nkey-file={tmp_path}/user.nk"):
            pass
        assert "Authorization Violation" in await refused(f"{server.url}?nkey-file={tmp_path}/other.nk")


async def test_a_jwt_is_read_from_its_file(tmp_path: Path) -> None:
    operator, stranger = Operator(), Operator()
    file = operator.credentials(tmp_path / "ann.creds", permits=["postroom.>"])
    with Nats(tmp_path, config=operator.config) as server:
        url = f"{server.url}?credentials-file={file}"
        async with connected(url):
            pass
        assert (await found(url)) == [f"backplane {url}: ok"]
        file.write_text(file.read_text().replace("\n", "\r\n"))  # as an editor of Windows leaves it
        async with connected(url):
            pass
        for wrong in (
            stranger.credentials(tmp_path / "stranger.creds"),
            operator.credentials(tmp_path / "old.creds", seconds=-1),
        ):
            assert "refuses this user" in await refused(f"{server.url}?credentials-file={wrong}")
        assert "Authorization Violation" in await refused(server.url)


async def test_credentials_that_were_renewed_count_at_the_next_connection(tmp_path: Path) -> None:
    operator = Operator()
    file = operator.credentials(tmp_path / "ann.creds", seconds=2)
    with Nats(tmp_path, config=operator.config) as server:
        async with connected(f"{server.url}?credentials-file={file}&timeout=2") as peer:
            operator.credentials(file)
            await peer.until(lambda: len(peer.interrupted_at) == 1)
            peer.heard.clear()
            await peer.says_until(lambda: bool(peer.heard), "all")


@pytest.mark.parametrize(
    ("option", "text", "sentence"),
    [
        ("credentials-file", None, "there is no file"),
        ("credentials-file", "nothing of the kind", "has no part -----BEGIN NATS USER JWT-----"),
        ("credentials-file", "-----BEGIN NATS USER JWT-----\nx.y.z\n", "has no part -----BEGIN USER NKEY SEED-----"),
        ("nkey-file", None, "there is no file"),
        ("nkey-file", "SUAMNOT4SEED", "holds no seed of an nkey"),
        ("nkey-file", "", "holds no seed of an nkey"),
        ("nkey-file", nkeys.encode_seed(bytes(32), nkeys.PREFIX_BYTE_ACCOUNT).decode(), "is not a user's"),
    ],
)
def test_a_file_that_is_wrong_is_said_at_once(tmp_path: Path, option: str, text: str | None, sentence: str) -> None:
    if text is not None:
        (tmp_path / "file").write_text(text)
    with pytest.raises(ConfigurationError, match=option) as caught:
        NatsBackplane(f"nats://host?{option}={tmp_path}/file")
    assert sentence in str(caught.value)
    assert not text or text not in str(caught.value)


async def test_a_certificate_says_who_one_is(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "ann").mkdir()
    (tmp_path / "eve").mkdir()
    certificate, key = self_signed(tmp_path / "server")
    mine, my_key = self_signed(tmp_path / "ann")
    other, other_key = self_signed(tmp_path / "eve")
    config = f'tls {{ cert_file: "{certificate}", key_file: "{key}", ca_file: "{mine}", verify: true }}'
    with Nats(tmp_path, config=config) as server:
        url = f"tls://127.0.0.1:{server.port}?timeout=2&ca-file={certificate}"
        async with connected(f"{url}&cert-file={mine}&key-file={my_key}"):
            pass
        for wrong in (url, f"{url}&cert-file={other}&key-file={other_key}"):
            said = ""
            # A reset that follows the server's alert may overtake it.
            async with asyncio.timeout(DEADLINE):
                while "the server wants a certificate that it trusts (cert-file, key-file)" not in said:
                    head, said = await found(wrong)
                    assert head.endswith(": not usable")


async def test_what_may_not_be_done_is_told_by_the_check(tmp_path: Path) -> None:
    config = """authorization { users: [ { user: ann, password: s3cr3t, permissions: {
        publish: ["postroom.echo.>", "postroom.node.>", "postroom.user.>"],
        subscribe: ["postroom.echo.>", "postroom.node.>", "postroom.topic.>", "postroom.all"] } } ] }"""
    with Nats(tmp_path, config=config) as server:
        said = await found(f"nats://ann:s3cr3t@127.0.0.1:{server.port}")
    assert said[0] == f"backplane nats://ann:***@127.0.0.1:{server.port}: not usable"
    refusals = [line.lower() for line in said[1:]]
    assert len(refusals) == 3
    for part in ('subscription to "postroom.topics"', 'subscription to "postroom.user.', 'publish to "postroom.topic.'):
        assert any(part in line for line in refusals), said
    assert all(line.endswith("permit this user to publish and subscribe on postroom.>") for line in refusals)


async def test_who_may_not_even_hear_oneself_is_told(tmp_path: Path) -> None:
    config = 'authorization { users: [ { user: ann, password: x, permissions: { publish: "other.>" } } ] }'
    with Nats(tmp_path, config=config) as server:
        url = f"nats://ann:x@127.0.0.1:{server.port}?timeout=1"
        said = " ".join(await found(url))
        assert "not usable" in said
        assert "postroom." in said
        async with running(NatsBackplane(url)) as peer:
            with pytest.raises(BackplaneUnavailable):
                await peer.backplane.subscribe([ALL])
