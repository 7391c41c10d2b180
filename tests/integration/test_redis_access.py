"""Redis and Valkey with a user of few rights, and over TLS."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.support.certificates import self_signed
from tests.support.client import StompClient
from tests.support.cluster import Nodes
from tests.support.server import Server
from tests.support.topologies import Cluster
from tests.support.valkey import Valkey, quiet_port, require_other

from postroom.cli import main

INBOX = "/user/queue/inbox"
GUIDE = (Path(__file__).parents[2] / "docs/how-to/run-a-cluster.md").read_text()


def documented() -> list[str]:
    """The rights that the guide says a user needs."""
    (line,) = re.findall(r"^ACL SETUSER postroom (.*)$", GUIDE, re.MULTILINE)
    return str(line).split()


def documented_for_a_cluster() -> list[str]:
    (more,) = re.findall(r"^In a Cluster it also needs `(.*)`", GUIDE, re.MULTILINE)
    return str(more).split()


def denied(server: Valkey) -> set[str]:
    """What the server has refused, but for the client library's name, which nobody needs."""
    entries = [dict(zip(entry[::2], entry[1::2], strict=True)) for entry in server.raw("ACL", "LOG")]
    return {entry[b"object"].decode() for entry in entries} - {"client|setinfo"}


async def talks(nodes: Nodes) -> None:
    """The main job: from node to node, and to somebody who is away."""
    one, two = nodes.nodes
    async with await StompClient.connect(one, "ann") as ann:
        async with await StompClient.connect(two, "ben") as ben:
            await ben.subscribe(INBOX)
            await ben.subscribe("/topic/news", id="topic")
            await ann.send("/user/ben/queue/inbox", "hello", headers={"idempotency-key": "k"})
            await ann.send("/topic/news", "all")
            assert (await ben.message("s")).text == "hello"
            assert (await ben.message("topic")).text == "all"
            await ben.confirmed()
        await ann.send("/user/ben/queue/inbox", "later")
    async with await StompClient.connect(one, "ben") as ben:
        await ben.subscribe(INBOX)
        assert (await ben.message()).text == "later"


@pytest.fixture(params=["valkey-9", "redis-7"])
def guarded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Valkey]:
    """A server that knows no user but `admin`, and `postroom` with the documented rights."""
    binary = None if request.param == "valkey-9" else require_other(request.param)
    with Valkey(tmp_path / "v", binary=binary) as server:
        server.command("ACL", "SETUSER", "postroom", *documented())
        yield server


def as_user(url: str) -> str:
    return url.replace("//", "//postroom:secret@", 1)


@pytest.mark.parametrize("routing", ["directory", "subject"])
async def test_the_documented_rights_will_do(make_nodes: Callable[..., Nodes], guarded: Valkey, routing: str) -> None:
    nodes = make_nodes(as_user(guarded.url), routing=routing)
    await talks(nodes)
    assert nodes.stop() == 0
    assert denied(guarded) - {"config|get"} == set()


async def test_the_documented_rights_will_do_in_a_cluster(make_nodes: Callable[..., Nodes], tmp_path: Path) -> None:
    with Cluster(tmp_path / "c") as servers:
        for server in servers.servers:
            server.command("ACL", "SETUSER", "postroom", *documented(), *documented_for_a_cluster())
        nodes = make_nodes(as_user(servers.url))
        await talks(nodes)
        assert nodes.stop() == 0
        assert set().union(*map(denied, servers.servers)) - {"config|get"} == set()


@pytest.mark.parametrize(
    ("rights", "said"),
    [
        (["-hget"], "hget"),
        (["-rpush", "-srem"], "rpush, srem"),
        (["-evalsha"], "'evalsha'"),
        (["-scan"], "'scan'"),
        (["-subscribe"], "the backplane refuses this user: .*'subscribe'"),
        (["-publish"], "the backplane refuses this user: .*'publish'"),
        (["resetchannels"], "the backplane refuses this user: .*channel"),
        (["resetkeys", "~other:*"], "keys postroom:"),
        ([">another", "<secret"], "WRONGPASS|invalid username-password"),
    ],
    ids=lambda each: each if isinstance(each, str) else " ".join(each),
)
def test_a_right_that_is_missing_is_said_at_the_start(
    guarded: Valkey, tmp_path: Path, rights: list[str], said: str
) -> None:
    guarded.command("ACL", "SETUSER", "postroom", *rights)
    server = Server(tmp_path, store=as_user(guarded.url))
    server.launch()
    try:
        assert server.process.wait(30) in (1, 2)
    finally:
        server.close()
    last = server.output(1)
    assert last.startswith("postroom: ")
    assert re.search(said, last)
    assert "secret" not in server.output()


# ── TLS ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def encrypted(tmp_path: Path) -> Iterator[tuple[Valkey, str]]:
    """A server and its URL with TLS. The Valkey in the wheel has none."""
    certificate, key = self_signed(tmp_path)
    port = quiet_port()
    options = {"tls-port": port, "tls-cert-file": certificate, "tls-key-file": key, "tls-ca-cert-file": certificate}
    extra = [each for name, value in options.items() for each in (f"--{name}", str(value))]
    with Valkey(tmp_path / "v", binary=require_other("redis-7"), extra=[*extra, "--tls-auth-clients", "no"]) as server:
        server.command("ACL", "SETUSER", "postroom", *documented())
        yield server, f"rediss://postroom:secret@127.0.0.1:{port}?ca-file={certificate}"


async def test_nodes_talk_to_the_server_over_tls(
    make_nodes: Callable[..., Nodes], encrypted: tuple[Valkey, str]
) -> None:
    await talks(make_nodes(encrypted[1]))


def test_a_certificate_of_an_authority_that_nobody_knows_is_refused(
    encrypted: tuple[Valkey, str], tmp_path: Path
) -> None:
    server = Server(tmp_path, store=encrypted[1].partition("?")[0])
    server.launch()
    try:
        assert server.process.wait(30) == 1
    finally:
        server.close()
    assert re.search("postroom: .*certificate", server.output(1), re.IGNORECASE)
    assert "secret" not in server.output()


def test_check_config_takes_such_urls_and_shows_no_password(encrypted: tuple[Valkey, str], tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text(f"dev = true\nstore = '{encrypted[1]}'\nbackplane = '{encrypted[1]}'\n")
    result = CliRunner().invoke(main, ["check-config", "--config", str(file)])
    assert (result.exit_code, "rediss://" in result.output, "secret" in result.output) == (0, True, False)
    file.write_text(f"dev = true\nstore = '{encrypted[1]}x'\n")
    result = CliRunner().invoke(main, ["check-config", "--config", str(file)])
    assert result.exit_code == 2
    assert "ca-file: there is no file" in result.output
    assert "secret" not in result.output
