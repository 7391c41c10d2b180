"""What the commands of `--postroom-restart`, `--postroom-pause` and `--postroom-resume` do to an engine's server."""

import subprocess
from typing import Final, Self

import pytest

_SECONDS: Final = 120
_OPTIONS: Final = ("restart", "pause", "resume")


class Commands:
    """An `Outage`. A test that needs a command which is not given is left out."""

    def __init__(self, commands: dict[str, str]) -> None:
        self._commands = commands

    @classmethod
    def of(cls, config: pytest.Config) -> Self:
        """The commands of the command line."""
        given = {name: config.getoption(f"--postroom-{name}") for name in _OPTIONS}
        return cls({name: command for name, command in given.items() if command})

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
        command = self._commands.get(what)
        if command is None:
            pytest.skip(f"--postroom-{what} is not given")
        done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=_SECONDS, check=False)
        if done.returncode:
            said = (done.stderr or done.stdout).strip()
            pytest.fail(f"--postroom-{what}: {command!r} ended with {done.returncode}: {said}", pytrace=False)
