"""The contracts' tests for the engines that `--postroom-backplane` and `--postroom-store` name (see `plugin`).

Whoever wants more of their server's faults tested than commands and a proxy can do subclasses the contracts instead.
"""

# ruff: noqa: D101 (the contracts say what is tested)

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import pytest
import pytest_asyncio

from postroom.backplane.base import open_backplane
from postroom.errors import PostroomError
from postroom.store import open_store, serves_directory
from postroom.testing.commands import Commands
from postroom.testing.contracts.backplane import BackplaneContract, Make
from postroom.testing.contracts.backplane import Linked as LinkedBackplane
from postroom.testing.contracts.cursor_store import CursorStoreContract, DurableCursorStoreContract
from postroom.testing.contracts.directory_store import DirectoryStoreContract, MakeDirecting
from postroom.testing.contracts.faults import Outage
from postroom.testing.contracts.log_store import DurableLogStoreContract, LogStoreContract
from postroom.testing.contracts.log_store import Make as MakeStore
from postroom.testing.contracts.store_faults import DirectoryFaultContract, LinkedDirecting, StoreFaultContract
from postroom.testing.contracts.store_faults import Linked as LinkedStore
from postroom.testing.contracts.transactions import TransactionContract
from postroom.testing.detour import backplane_goes_round, store_goes_round
from postroom.testing.links import Links, NoLink, way_of

_ROUND: Final = (
    "the engine connects to addresses that its server tells it, round the proxy: let the server tell a client that"
    " comes through the proxy the proxy's own address, and give --postroom-link"
)
_detours: dict[str, bool] = {}
"""By option, whether the engine goes round its proxies."""


def _url(config: pytest.Config, option: str) -> str:
    url: str = config.getoption(option)  # without one the plugin leaves the class out
    return url.replace("{fresh}", f"t{secrets.token_hex(6)}")


@pytest.fixture
def backplane_url(pytestconfig: pytest.Config) -> str:
    """The backplane, as this test has it for itself."""
    return _url(pytestconfig, "--postroom-backplane")


@pytest.fixture
def store_url(pytestconfig: pytest.Config) -> str:
    """The store, as this test has it for itself."""
    return _url(pytestconfig, "--postroom-store")


@pytest.fixture
def directory_url(store_url: str) -> str:
    """The same, if it keeps a directory."""
    if not serves_directory(store_url):
        pytest.skip("the engine keeps no directory: its entry point is not among postroom.directories")
    return store_url


@pytest.fixture
def commands(pytestconfig: pytest.Config) -> Outage:
    """What may be done to the server by commands."""
    return Commands.of(pytestconfig)


def _make_backplane(url: str) -> Make:
    return lambda: open_backplane(url)


def _make_store(url: str) -> MakeStore:
    return lambda clock: open_store(url, clock=clock)


def _make_directing(url: str) -> MakeDirecting:
    return lambda clock: open_store(url, clock=clock)  # type: ignore[return-value]  # the entry point says so


def _links(config: pytest.Config, url: str) -> Links:
    try:
        return Links(url, ways=[way_of(text) for text in config.getoption("--postroom-link")])
    except NoLink as reason:
        pytest.skip(str(reason))


async def _stay(option: str, goes_round: Callable[[str, Links], Awaitable[bool]], config: pytest.Config) -> None:
    """Leave the test out where the engine goes round its proxies; that is tried once."""
    if option not in _detours:
        url = _url(config, option)
        with _links(config, url) as links:
            try:
                _detours[option] = await goes_round(url, links)
            except (PostroomError, ExceptionGroup) as error:
                host = links.url.partition("?")[0].rpartition("@")[2].rpartition("://")[2]
                pytest.fail(
                    f"through a proxy at {host} the engine does not come up: {error}. If it speaks TLS, the server's"
                    " certificate must name that host, or another one that you give with --postroom-link",
                    pytrace=False,
                )
    if _detours[option]:
        pytest.skip(_ROUND)


@pytest_asyncio.fixture
async def backplane_over(backplane_url: str, pytestconfig: pytest.Config) -> AsyncIterator[LinkedBackplane]:
    """The backplane over proxies."""

    async def goes_round(url: str, links: Links) -> bool:
        return await backplane_goes_round(_make_backplane(url), (_make_backplane(links.url), links))

    await _stay("--postroom-backplane", goes_round, pytestconfig)
    with _links(pytestconfig, backplane_url) as links:
        yield _make_backplane(links.url), links


@pytest_asyncio.fixture
async def store_over(store_url: str, pytestconfig: pytest.Config) -> AsyncIterator[LinkedStore]:
    """The store over proxies."""

    async def goes_round(url: str, links: Links) -> bool:
        return await store_goes_round(_make_store(url), (_make_store(links.url), links))

    await _stay("--postroom-store", goes_round, pytestconfig)
    with _links(pytestconfig, store_url) as links:
        yield _make_store(links.url), links


class TestBackplane(BackplaneContract):
    engine = "certified"
    asks = "--postroom-backplane"

    @pytest.fixture
    def make(self, backplane_url: str) -> Make:
        """Engines for one URL."""
        return _make_backplane(backplane_url)

    @pytest.fixture
    def outage(self, commands: Outage) -> Outage:
        """By commands."""
        return commands

    @pytest.fixture
    def linked(self, backplane_over: LinkedBackplane) -> LinkedBackplane:
        """By proxies."""
        return backplane_over


class TestStore(LogStoreContract, CursorStoreContract):
    engine = "certified"
    asks = "--postroom-store"

    @pytest.fixture
    def make(self, store_url: str) -> MakeStore:
        """Engines for one URL."""
        return _make_store(store_url)


class TestDurableStore(DurableLogStoreContract, DurableCursorStoreContract):
    engine = "certified"
    asks = "--postroom-store"

    @pytest.fixture
    def make(self, store_url: str) -> MakeStore:
        """Engines for one URL, if they say that they keep what they accept."""
        if not open_store(store_url).durable:
            pytest.skip("the engine says that it is not durable")
        return _make_store(store_url)


class TestStoreFaults(StoreFaultContract):
    engine = "certified"
    asks = "--postroom-store"

    @pytest.fixture
    def make(self, store_url: str) -> MakeStore:
        """Engines for one URL."""
        return _make_store(store_url)

    @pytest.fixture
    def outage(self, commands: Outage) -> Outage:
        """By commands."""
        return commands

    @pytest.fixture
    def linked(self, store_over: LinkedStore) -> LinkedStore:
        """By proxies."""
        return store_over


class TestTransactions(TransactionContract):
    engine = "certified"
    asks = "--postroom-store"

    @pytest.fixture(autouse=True)
    def _apart(self, pytestconfig: pytest.Config) -> None:
        """Whether logs of several users lie on several servers."""
        self.several_logs = not pytestconfig.getoption("--postroom-apart")

    @pytest.fixture
    def make(self, store_url: str) -> MakeStore:
        """Engines for one URL."""
        return _make_store(store_url)


class TestDirectory(DirectoryStoreContract):
    engine = "certified"
    asks = "--postroom-store"

    @pytest.fixture
    def make(self, directory_url: str) -> MakeDirecting:
        """Engines for one URL, if they keep a directory."""
        return _make_directing(directory_url)


class TestDirectoryFaults(DirectoryFaultContract):
    engine = "certified"
    asks = "--postroom-store"

    @pytest.fixture
    def make(self, directory_url: str) -> MakeDirecting:
        """Engines for one URL, if they keep a directory."""
        return _make_directing(directory_url)

    @pytest.fixture
    def linked(self, directory_url: str, store_over: LinkedStore) -> LinkedDirecting:
        """By proxies."""
        return store_over  # type: ignore[return-value]  # `directory_url` says that it keeps one
