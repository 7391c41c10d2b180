"""The kit as a pytest plugin: engines are certified by URL, and what held is told."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from postroom.testing.table import page

BROKEN = """
from postroom.store.memory import MemoryStore
from postroom.testing.contracts.cursor_store import CursorStoreContract
import pytest

class Forgetful(MemoryStore):
    async def confirm(self, batch):
        pass

class TestForgetful(CursorStoreContract):
    engine = "forgetful"

    @pytest.fixture
    def make(self):
        return lambda clock: Forgetful("memory:", clock=clock)
"""


def kit(folder: Path, *words: str) -> tuple[int, list[dict[str, str]]]:
    """The exit code of a run of pytest, and what it reported."""
    report = folder / "report.json"
    common = ["-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto", "--rootdir", str(folder)]
    command = [sys.executable, "-m", "pytest", *common, "--postroom-report", str(report), *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=50)
    rows: list[dict[str, str]] = json.loads(report.read_text(encoding="utf-8"))
    return done.returncode, rows


def test_an_installed_engine_is_certified_by_its_url(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/{{fresh}}/x.db"
    code, rows = kit(
        tmp_path, "--pyargs", "postroom.testing.certify", "--postroom-store", url, "-k", "Store or Directory"
    )
    assert code == 0
    outcomes = {(row["contract"], row["test"]): row["outcome"] for row in rows}
    assert outcomes["CursorStoreContract", "test_a_cursor_never_moves_back"] == "passed"
    assert outcomes["DurableLogStoreContract", "test_offsets_are_not_used_again"] == "passed"
    assert outcomes["DirectoryStoreContract", "test_who_has_entered_is_found"] == "skipped"


def test_an_engine_that_breaks_a_promise_is_told(tmp_path: Path) -> None:
    (tmp_path / "test_forgetful.py").write_text(BROKEN)
    code, rows = kit(tmp_path, "test_forgetful.py")
    assert code == 1
    outcomes = {row["test"]: row["outcome"] for row in rows}
    assert outcomes["test_a_confirm_moves_the_cursor"] == "failed"
    assert outcomes["test_an_empty_batch_is_nothing"] == "passed"


@pytest.mark.parametrize(("outcome", "sign"), [("passed", "yes"), ("failed", "NO"), ("skipped", "-")])
def test_the_page_says_what_held(outcome: str, sign: str) -> None:
    row = {"contract": "LogStoreContract", "test": "test_a_log_s_end", "engine": "Mine", "outcome": outcome}
    other = {"contract": "LogStoreContract", "test": "test_only_yours", "engine": "Yours", "outcome": "passed"}
    assert f"| | Mine | Yours |\n| --- | --- | --- |\n| a log's end | {sign} | - |\n" in page([row, other])
