"""Every scenario runs on one node, and on two behind nginx with each routing scheme."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import Start
from tests.support.server import Server

_SPRING = """
[prefixes]
app = ["/app", "/message"]
[[channel]]
code = "STAFF"
destination = "/app/quotes/SECRET"
subscribe = ["role:staff"]
[[channel]]
code = "ORDERS"
destination = "/app/forward/boss"
send = "nobody"
"""


@pytest.fixture(scope="module", params=["one-node", "directory", "broadcast", "subject"])
def arrangement(request: pytest.FixtureRequest) -> str:
    """See the fixture of this name above."""
    return str(request.param)


@pytest.fixture(scope="module")
def spring(tmp_path_factory: pytest.TempPathFactory, _start: Start) -> Iterator[Server]:
    """A server with `applications/shop.py`, for what Spring's clients expect."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).with_name("applications")))
        server = _start(tmp_path_factory.mktemp("spring"), _SPRING, application="shop:app")
    yield server
    server.close()
