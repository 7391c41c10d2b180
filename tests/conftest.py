"""Fixtures of all tests. `tests.support` is importable from everywhere below."""

import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog

_ROOT = Path(__file__).parent.parent
if str(_ROOT) not in sys.path:
    sys.path.insert(0, str(_ROOT))

from tests.support.cluster import Nodes  # noqa: E402  (the path is set above)
from tests.support.engines import Nats, RabbitMQ  # noqa: E402
from tests.support.faults import RESUMED  # noqa: E402
from tests.support.kafka import Kafka  # noqa: E402
from tests.support.postgres import Postgres  # noqa: E402
from tests.support.server import Server  # noqa: E402
from tests.support.services import require  # noqa: E402
from tests.support.valkey import Valkey, require_other  # noqa: E402


@pytest.fixture(autouse=True)
def _logs_can_be_captured(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test that sets logging up leaves no logger behind that is bound for good to how it was."""
    configure = structlog.configure

    def uncached(**given: Any) -> None:
        configure(**given | {"cache_logger_on_first_use": False})

    monkeypatch.setattr(structlog, "configure", uncached)
    yield
    structlog.reset_defaults()


ONE_NODE = "one-node"
_names = itertools.count(1)


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """One Valkey for all tests that do not hurt it: use a prefix of your own (`fresh_url`)."""
    server = Valkey(tmp_path_factory.mktemp("valkey"), extra=["--unixsocket", "valkey.sock"])
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="session", params=["redis-7", "valkey-8"])
def other_valkey(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A Redis 7, and a Valkey 8: what else is supported."""
    with Valkey(tmp_path_factory.mktemp("other"), binary=require_other(request.param)) as server:
        yield server


@pytest.fixture
def other_url(other_valkey: Valkey) -> str:
    """One of them, with a prefix that nobody has used."""
    return f"{other_valkey.url}?prefix=t{next(_names)}"


@pytest.fixture(scope="session")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    """One NATS for all tests; who hurts it mends it."""
    with Nats(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """One Kafka for all tests; who hurts it mends it."""
    with Kafka(tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """One RabbitMQ for all tests; who hurts it mends it."""
    with RabbitMQ(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server


@pytest.fixture(scope="session")
def rabbitmq4(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """The same of version 4."""
    with RabbitMQ(tmp_path_factory.mktemp("rabbitmq4"), version=4) as server:
        yield server


@pytest.fixture
def fresh_url(valkey: Valkey) -> str:
    """The shared Valkey, with a prefix that nobody has used."""
    return f"{valkey.url}?prefix=t{next(_names)}"


@pytest.fixture
def unix_url(valkey: Valkey) -> str:
    """The same at its Unix socket."""
    return f"redis+unix://{valkey.folder}/valkey.sock?prefix=t{next(_names)}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL for all tests that do not hurt it: use a schema of your own (`postgres_url`)."""
    server = Postgres()
    server.start()
    yield server
    server.close()


@pytest.fixture
def postgres_url(postgres: Postgres) -> str:
    """The shared PostgreSQL, with a schema that nobody has used."""
    return postgres.url(f"t{next(_names)}")


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A PostgreSQL that the test may hurt."""
    server = Postgres()
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="module")
def arrangement() -> str:
    """What `make_server` and its like start: one node, or two behind nginx with this routing, such as `directory`,
    or `directory over nats` where the backplane is not the store's, or `… on postgres` where that is no Valkey."""
    return ONE_NODE


Start = Callable[..., Server]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How long it took until messages arrived again, of each test that tells (`record_property`)."""
    reports = [each for key in ("passed", "failed") for each in terminalreporter.stats.get(key, [])]
    told = [(each.nodeid, value) for each in reports for name, value in each.user_properties if name == RESUMED]
    if told:
        terminalreporter.section(f"{RESUMED} after")
    for test, value in told:
        terminalreporter.write_line(f"{test.rpartition('::')[2]}: {value}")


@pytest.fixture(scope="module")
def _start(arrangement: str, request: pytest.FixtureRequest) -> Start:
    def own_url(engine: str) -> str:
        server, name = request.getfixturevalue(engine), f"t{next(_names)}"
        return server.url(name) if isinstance(server, Postgres) else f"{server.url}?prefix={name}"

    def start(folder: Path, config: str = "", application: str = "") -> Server:
        if arrangement == ONE_NODE:
            server = Server(folder, config=config, application=application)
        else:
            require("nginx", install="apt-get install nginx-light")
            ways, _, keeper = arrangement.partition(" on ")
            routing, _, carrier = ways.partition(" over ")
            store, backplane = own_url(keeper or "valkey"), own_url(carrier) if carrier else ""
            server = Nodes(folder, store, config=config, application=application, routing=routing, backplane=backplane)
        try:
            server.start()
        except BaseException:
            server.close()
            raise
        return server

    return start


@pytest.fixture
def make_server(tmp_path: Path, _start: Start) -> Iterator[Callable[..., Server]]:
    """Starts a server with settings of the test's own; all of them end with the test."""
    started: list[Server] = []

    def make(config: str = "", application: str = "") -> Server:
        folder = tmp_path / f"node-{len(started)}"
        folder.mkdir()
        started.append(_start(folder, config, application))
        return started[-1]

    yield make
    for server in started:
        server.close()


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory, _start: Start) -> Iterator[Server]:
    """One server for a module whose tests do not hurt it: use users of your own."""
    server = _start(tmp_path_factory.mktemp("node"))
    yield server
    server.close()


@pytest.fixture
def server(make_server: Callable[..., Server]) -> Server:
    """A server of the test's own, with default settings."""
    return make_server()


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A Valkey that the test may hurt."""
    server = Valkey(tmp_path / "valkey")
    server.start()
    yield server
    server.close()


@pytest.fixture
def make_nodes(tmp_path: Path) -> Iterator[Callable[..., Nodes]]:
    """Starts nodes behind nginx over the store of a URL; all end with the test."""
    require("nginx", install="apt-get install nginx-light")
    started: list[Nodes] = []

    def make(
        store: str | Sequence[str],
        *,
        routing: str = "directory",
        backplane: str | Sequence[str] = "",
        count: int = 2,
        config: str = "",
    ) -> Nodes:
        folder = tmp_path / f"cluster-{len(started)}"
        folder.mkdir()
        nodes = Nodes(folder, store, count=count, config=config, routing=routing, backplane=backplane)
        started.append(nodes)
        nodes.start()
        return nodes

    yield make
    for nodes in started:
        nodes.close()
