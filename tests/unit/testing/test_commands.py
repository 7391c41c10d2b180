"""Commands that hurt a server."""

from pathlib import Path

import pytest

from postroom.testing.commands import Commands


def test_a_command_is_a_shell_s(tmp_path: Path) -> None:
    Commands({"restart": f"echo once >> {tmp_path}/x && echo twice >> {tmp_path}/x"}).restart()
    assert (tmp_path / "x").read_text() == "once\ntwice\n"


def test_a_command_that_fails_is_told_with_what_it_said() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"--postroom-pause: .* ended with 3: no such server"):
        Commands({"pause": "echo no such server >&2; exit 3"}).pause()


def test_without_a_command_the_test_is_left_out() -> None:
    with pytest.raises(pytest.skip.Exception, match="--postroom-resume is not given"):
        Commands({}).resume()
