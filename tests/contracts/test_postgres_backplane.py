"""PostgreSQL's LISTEN and NOTIFY against the backplane's contract."""

import itertools
from collections.abc import Iterator

import pytest
from tests.support.postgres import Postgres

from postroom.backplane.postgres import PostgresBackplane
from postroom.testing.contracts.backplane import BackplaneContract, Linked, Make
from postroom.testing.contracts.faults import Outage
from postroom.testing.links import Links

_names = itertools.count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """One that only these tests hurt."""
    with Postgres() as server:
        yield server


@pytest.fixture
def schema() -> str:
    return f"t{next(_names)}"


class TestPostgresBackplane(BackplaneContract):
    engine = "PostgreSQL"

    @pytest.fixture
    def make(self, server: Postgres, schema: str) -> Make:
        return lambda: PostgresBackplane(server.url(schema, timeout="2"))

    @pytest.fixture
    def outage(self, server: Postgres) -> Outage:
        return server

    @pytest.fixture
    def linked(self, server: Postgres, schema: str) -> Iterator[Linked]:
        with Links(server.url(schema, timeout="2")) as links:
            yield lambda: PostgresBackplane(links.url), links
