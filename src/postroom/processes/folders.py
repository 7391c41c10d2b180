"""Folders that one process holds against others: one that keeps data, and one for sockets, for as long as it lives."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Final

from postroom.errors import ConfigurationError

_LOCK_SECONDS: Final = 3.0
_TURN_SECONDS: Final = 0.05
_MAKING: Final = "postroom-new-"
_HELD: Final = "postroom-run-"


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
    """A new folder that only this user may enter, with a path short enough for Unix sockets; removed at the end.

    What processes that were killed have left of such folders is removed too.
    """
    import fcntl

    made = Path(os.path.realpath(tempfile.mkdtemp(prefix=_MAKING)))
    folder = made.with_name(_HELD + made.name.removeprefix(_MAKING))
    with (made / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made.rename(folder)  # who looks for left ones finds it once it is held
        try:
            _remove_left(folder.parent)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_left(place: Path) -> None:
    import fcntl

    for lock in place.glob(f"{_HELD}*/lock"):
        with contextlib.suppress(OSError):  # somebody else's, or held
            if lock.parent.lstat().st_uid == os.getuid():
                with lock.open("r+") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(lock.parent)
