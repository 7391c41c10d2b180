"""The load generator against the real server."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import ONE_NODE
from tests.support.deadline import DEADLINE
from tests.support.server import Server

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def arrangement() -> str:
    """The generator is the same with several nodes."""
    return ONE_NODE


@pytest.mark.parametrize("scenario", ["fanout", "direct", "durable", "connect", "idle"])
def test_a_run_reports_to_people_programs_and_eyes(shared_server: Server, tmp_path: Path, scenario: str) -> None:
    file, picture = tmp_path / "report.json", tmp_path / "picture.png"
    warmup = ["--warmup", "0.1"]
    options = ["-c", "10", "-d", "0.5", *warmup, "--json", str(file), "--plot", str(picture)]
    ended = subprocess.run(
        [sys.executable, "-m", "postroom", "bench", scenario, shared_server.url, *options],
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.startswith(f"{scenario}: ")
    report = json.loads(file.read_text())
    assert report["rate"] > 0
    assert report["received"] > 0
    assert (report["refused"], report["failed"], report["lost"]) == (0, 0, 0)
    assert report["latency_ms"]["p50"] <= report["latency_ms"]["p99"] <= report["latency_ms"]["max"]
    assert report["series"]
    assert picture.read_bytes().startswith(b"\x89PNG")
