"""The conformance kit as a pytest plugin: an engine is certified by its URL, and what held is written down.

    pytest --pyargs postroom.testing.certify --postroom-store "redis://localhost?prefix={fresh}"

`{fresh}` in a URL stands for a name that is another one in each test: an engine begins each test with nothing in it.
"""

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import pytest

_RANKS: Final = ("skipped", "passed", "failed")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the kit."""
    group = parser.getgroup("postroom", "Postroom's conformance kit")
    group.addoption("--postroom-backplane", metavar="URL", help="certify the backplane that URL names")
    group.addoption("--postroom-store", metavar="URL", help="certify the store that URL names, and its directory")
    group.addoption("--postroom-restart", metavar="COMMAND", help="kills the engine's server and starts it again")
    group.addoption("--postroom-pause", metavar="COMMAND", help="stops the engine's server, its connections stay")
    group.addoption("--postroom-resume", metavar="COMMAND", help="lets it go on")
    group.addoption("--postroom-report", metavar="FILE", type=Path, help="write what held, by engine, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    """Keep the outcomes, if they are asked for."""
    if config.getoption("--postroom-report"):
        config.pluginmanager.register(Outcomes(config.getoption("--postroom-report")), "postroom-outcomes")


class Outcomes:
    """What became of the contracts' tests, by contract, test and engine; of several runs of one test the worst.

    An engine is what the attribute `engine` of a test class names; a class without one is not written down.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._worst: dict[tuple[str, str, str], str] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[Any]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Note the report of a test's set-up, its run and its end."""
        report = yield
        engine = getattr(getattr(item, "cls", None), "engine", "")
        contract, _, test = getattr(getattr(item, "function", None), "__qualname__", "").rpartition(".")
        if engine and contract.endswith("Contract") and (report.when == "call" or not report.passed):
            key = (contract, test, engine)
            self._worst[key] = max(self._worst.get(key, "skipped"), report.outcome, key=_RANKS.index)
        return report

    def pytest_sessionfinish(self) -> None:
        """Write the file."""
        rows = [
            {"contract": contract, "test": test, "engine": engine, "outcome": outcome}
            for (contract, test, engine), outcome in sorted(self._worst.items())
        ]
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(rows, indent=1), encoding="utf-8")
