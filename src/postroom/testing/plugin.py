"""The conformance kit as a pytest plugin: an engine is certified by its URL, and what held is written down.

    pytest --pyargs postroom.testing.certify --postroom-store "redis://localhost:6379?prefix={fresh}"

`{fresh}` in a URL stands for a name that is another one in each test: an engine begins each test with nothing in it.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from postroom.testing.links import NoLink, way_of
from postroom.testing.table import TITLES

_RANKS: Final = ("skipped", "passed", "failed")
_ENGINES: Final = ("--postroom-store", "--postroom-backplane")
_TRIED: Final = pytest.StashKey[Sequence[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the kit."""
    group = parser.getgroup("postroom", "Postroom's conformance kit")
    group.addoption("--postroom-backplane", metavar="URL", help="certify the backplane that URL names")
    group.addoption("--postroom-store", metavar="URL", help="certify the store that URL names, and its directory")
    group.addoption("--postroom-restart", metavar="COMMAND", help="a shell's: kills the server and starts it again")
    group.addoption("--postroom-pause", metavar="COMMAND", help="stops the server, its connections stay")
    group.addoption("--postroom-resume", metavar="COMMAND", help="lets it go on")
    group.addoption(
        "--postroom-link",
        metavar="LISTEN=SERVER",
        action="append",
        default=[],
        help="put the proxy that hurts connections to SERVER (host:port) at LISTEN (host:port, port 0: any that is"
        " free), and lead the engine there in place of the URL's servers; once for each. Without it there is a proxy"
        " at 127.0.0.1 for each server of the URL",
    )
    group.addoption(
        "--postroom-apart", action="store_true", help="logs of several users may lie on several servers of the store"
    )
    group.addoption("--postroom-report", metavar="FILE", type=Path, help="write what held, by engine, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    """Keep the outcomes, if they are asked for. Raises UsageError for options that make no sense."""
    if config.getoption("--postroom-pause") and not config.getoption("--postroom-resume"):
        raise pytest.UsageError("--postroom-pause needs --postroom-resume, or the server would stay stopped")
    try:
        for text in config.getoption("--postroom-link"):
            way_of(text)
    except NoLink as error:
        raise pytest.UsageError(f"--postroom-link LISTEN=SERVER: {error}") from error
    if config.getoption("--postroom-report") or _urls(config):
        config.pluginmanager.register(Outcomes(config.getoption("--postroom-report")), "postroom-outcomes")


def _urls(config: pytest.Config) -> dict[str, str]:
    return {option: url for option in _ENGINES if (url := config.getoption(option))}


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Try the engines once, before a hundred tests fail for one reason. Raises UsageError where one is not usable."""
    lines: list[str] = []
    for option, url in _urls(session.config).items():
        from postroom import trial  # most runs of pytest need none of it

        attempt = trial.try_store if option == "--postroom-store" else trial.try_backplane
        report = asyncio.run(attempt(url.replace("{fresh}", "check")))
        lines += report.lines
        if not report.well:
            raise pytest.UsageError("\n".join([f"{option}:", *report.lines]))
    session.config.stash[_TRIED] = lines


def pytest_report_header(config: pytest.Config) -> Sequence[str]:
    """What was found when the engines were tried."""
    return config.stash.get(_TRIED, [])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is asked of an engine that is not named. Raises UsageError where none is."""
    asked = {item: getattr(getattr(item, "cls", None), "asks", "") for item in items}
    lacking = [item for item, option in asked.items() if option in _ENGINES and not config.getoption(option)]
    if lacking and not _urls(config):
        raise pytest.UsageError(f"name what is to be certified: {' URL or '.join(_ENGINES)} URL")
    config.hook.pytest_deselected(items=lacking)
    items[:] = [item for item in items if item not in lacking]


class Outcomes:
    """What became of the contracts' tests, by contract, test and engine; of several runs of one test the worst.

    An engine is what the attribute `engine` of a test class names; a class without one is not written down.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._worst: dict[tuple[str, str, str], str] = {}
        self._reasons = Counter[str]()

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
            if isinstance(report.longrepr, tuple):
                self._reasons[report.longrepr[2].removeprefix("Skipped: ")] += 1
        return report

    def pytest_sessionfinish(self) -> None:
        """Write the file."""
        if self._file is None:
            return
        rows = [
            {"contract": contract, "test": test, "engine": engine, "outcome": outcome}
            for (contract, test, engine), outcome in sorted(self._worst.items())
        ]
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(rows, indent=1), encoding="utf-8")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """How much of each contract held, and why the rest was left out."""
        if not self._worst:
            return
        terminalreporter.section("Postroom's contracts")
        for contract, title in TITLES.items():
            found = Counter(outcome for (name, _, _), outcome in self._worst.items() if name == contract)
            if found:
                failed, passed, skipped = found["failed"], found["passed"], found["skipped"]
                terminalreporter.write_line(f"{title}: {passed} held, {failed} did not, {skipped} left out")
        for reason, count in self._reasons.most_common():
            terminalreporter.write_line(f"left out {count}: {reason}")
