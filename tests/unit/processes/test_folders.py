"""Folders that one process holds against others."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from postroom.errors import ConfigurationError
from postroom.processes import folders
from postroom.processes.folders import alone, private_folder

pytestmark = pytest.mark.skipif(os.name != "posix", reason="locks of files are POSIX's")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


def test_nobody_else_enters_and_nothing_is_left(place: Path) -> None:
    with private_folder() as one, private_folder() as other:
        assert one.parent == place
        assert one != other
        assert stat.S_IMODE(one.stat().st_mode) == 0o700
        assert (one / "lock").exists(), "the second has not taken it for one that was left"
    assert [*place.iterdir()] == []


def test_what_a_killed_process_left_is_removed(place: Path) -> None:
    leaves = (
        "import os; from postroom.processes.folders import private_folder\n"
        "with private_folder() as folder: (folder / 'x.sock').touch(); os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", leaves], check=False)
    (place / "postroom-run-foreign").mkdir()
    assert len([*place.iterdir()]) == 2
    with private_folder() as folder:
        assert {*place.iterdir()} == {folder, place / "postroom-run-foreign"}


def test_a_folder_is_for_one_and_is_free_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_LOCK_SECONDS", 0.1)
    data = tmp_path / "a" / "data"
    with (
        alone(data),
        pytest.raises(ConfigurationError, match=f"another Postroom keeps its messages in {data}"),
        alone(data),
    ):
        pass
    with alone(data) as held:
        assert held > 0
