"""The contracts' tests for the engines that `--postroom-backplane` and `--postroom-store` name (see `plugin`).

Whoever wants more of their server's faults tested than commands and a proxy can do subclasses the contracts instead.
"""

# ruff: noqa: D101 (the contracts say what is tested)

import secrets
import shlex
import subprocess

import pytest

from postroom.backplane.base import open_backplane
from postroom.store import open_store, serves_directory
from postroom.testing.contracts.backplane import BackplaneContract, Make, Outage
from postroom.testing.contracts.cursor_store import CursorStoreContract, DurableCursorStoreContract
from postroom.testing.contracts.directory_store import DirectoryStoreContract, MakeDirecting
from postroom.testing.contracts.log_store import DurableLogStoreContract, LogStoreContract
from postroom.testing.contracts.log_store import Make as MakeStore
from postroom.testing.contracts.transactions import TransactionContract

_SECONDS = 120


class Commands:
    """An `Outage` by the commands of `--postroom-restart`, `--postroom-pause` and `--postroom-resume`."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def restart(self) -> None:
        """Kill the server, and start it again."""
        self._run("restart")

    def pause(self) -> None:
        """It stays connected, and does nothing."""
        self._run("pause")

    def resume(self) -> None:
        """It goes on."""
        self._run("resume")

    def _run(self, what: str) -> None:
        command = self._config.getoption(f"--postroom-{what}")
        if not command:
            pytest.skip(f"--postroom-{what} is not given")
        subprocess.run(shlex.split(command), check=True, timeout=_SECONDS)


def _url(request: pytest.FixtureRequest, option: str) -> str:
    url: str | None = request.config.getoption(option)
    if not url:
        pytest.skip(f"{option} is not given")
    return url.replace("{fresh}", f"t{secrets.token_hex(6)}")


def _store(request: pytest.FixtureRequest) -> MakeStore:
    url = _url(request, "--postroom-store")
    return lambda clock: open_store(url, clock=clock)


class TestBackplane(BackplaneContract):
    engine = "certified"

    @pytest.fixture
    def make(self, request: pytest.FixtureRequest) -> Make:
        """Engines for one URL."""
        url = _url(request, "--postroom-backplane")
        return lambda: open_backplane(url)

    @pytest.fixture
    def outage(self, request: pytest.FixtureRequest) -> Outage | None:
        """By commands, if there is one that restarts the server."""
        return Commands(request.config) if request.config.getoption("--postroom-restart") else None


class TestStore(LogStoreContract, CursorStoreContract):
    engine = "certified"

    @pytest.fixture
    def make(self, request: pytest.FixtureRequest) -> MakeStore:
        """Engines for one URL."""
        return _store(request)


class TestDurableStore(DurableLogStoreContract, DurableCursorStoreContract):
    engine = "certified"

    @pytest.fixture
    def make(self, request: pytest.FixtureRequest) -> MakeStore:
        """Engines for one URL, if they say that they keep what they accept."""
        if not open_store(_url(request, "--postroom-store")).durable:
            pytest.skip("the engine says that it is not durable")
        return _store(request)


class TestTransactions(TransactionContract):
    engine = "certified"

    @pytest.fixture
    def make(self, request: pytest.FixtureRequest) -> MakeStore:
        """Engines for one URL."""
        return _store(request)


class TestDirectory(DirectoryStoreContract):
    engine = "certified"

    @pytest.fixture
    def make(self, request: pytest.FixtureRequest) -> MakeDirecting:
        """Engines for one URL, if they keep a directory."""
        url = _url(request, "--postroom-store")
        if not serves_directory(url):
            pytest.skip("the engine keeps no directory: its entry point is not among postroom.directories")
        return lambda clock: open_store(url, clock=clock)  # type: ignore[return-value]  # the entry point says so
