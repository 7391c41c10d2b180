"""Every scenario runs on one node, and on two behind nginx with each routing scheme."""

import pytest


@pytest.fixture(scope="module", params=["one-node", "directory", "broadcast", "subject"])
def arrangement(request: pytest.FixtureRequest) -> str:
    """See the fixture of this name above."""
    return str(request.param)
