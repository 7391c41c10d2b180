"""Fixtures of all tests. `tests.support` is importable from everywhere below."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent
if str(_ROOT) not in sys.path:
    sys.path.insert(0, str(_ROOT))

from tests.support.server import Server  # noqa: E402  (the path is set above)


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts a server process with settings of the test's own; all of them end with the test."""
    started: list[Server] = []

    def make(config: str = "", application: str = "") -> Server:
        folder = tmp_path / f"node-{len(started)}"
        folder.mkdir()
        server = Server(folder, config=config, application=application)
        started.append(server)
        server.start()
        return server

    yield make
    for server in started:
        server.close()


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for a module whose tests do not hurt it: use users of your own."""
    server = Server(tmp_path_factory.mktemp("node"))
    server.start()
    yield server
    server.close()


@pytest.fixture
def server(make_server: Callable[..., Server]) -> Server:
    """A server of the test's own, with default settings."""
    return make_server()
