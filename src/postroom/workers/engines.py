"""What the workers share: the engines that the settings name, and whether they can be shared."""

import sys
from pathlib import Path
from typing import Final

from msgspec import Struct

from postroom.backplane.base import open_backplane
from postroom.config import EMBEDDED, Settings
from postroom.errors import ConfigurationError
from postroom.node import backplane_url
from postroom.processes.valkey import find_program
from postroom.store import directory_of, file_of, open_store

_FOLDER: Final = Path("postroom-data") / "workers"
_PROBE: Final = "redis+unix:///valkey.sock"
"""Stands for the embedded engine while the settings are looked at."""


class Engines(Struct, frozen=True):
    """URLs of store and backplane as the settings have them, and the folder of the embedded engine, if there is one."""

    store: str
    backplane: str
    folder: Path | None

    def at(self, url: str) -> "Engines":
        """The same with the embedded engine at `url`."""
        store, backplane = (url if is_embedded(each) else each for each in (self.store, self.backplane))
        return Engines(store, backplane, self.folder)


def is_embedded(url: str) -> bool:
    """Whether `url` is that of the embedded engine."""
    return url.startswith(EMBEDDED)


def needed(settings: Settings) -> bool:
    """Whether a process is to keep others: several workers, or the embedded engine."""
    return settings.workers > 1 or embeds(settings)


def embeds(settings: Settings) -> bool:
    """Whether an engine is to be started for the workers."""
    return is_embedded(settings.store) or is_embedded(settings.backplane)


def check(settings: Settings) -> Engines:
    """The engines of several workers. Raises ConfigurationError: one line that says what to use; or NoValkey."""
    if sys.platform == "win32":
        raise ConfigurationError("workers: several are for Linux and macOS; here start one")
    for name, url in (("store", settings.store), ("backplane", settings.backplane)):
        scheme = url.partition(":")[0]
        if scheme in ("sqlite", "memory"):
            raise ConfigurationError(
                f"{name}: {scheme}: is for one process, and {settings.workers} workers are several:"
                f" leave {name} out, or name one that processes share, such as redis://HOST"
            )
    engines = Engines(settings.store, settings.backplane, _folder(settings))
    if engines.folder is not None:
        find_program()
    _try(engines.at(_PROBE))
    _keep_what_there_is(settings)
    return engines


def _folder(settings: Settings) -> Path | None:
    folders = {_folder_of(url) for url in (settings.store, settings.backplane) if is_embedded(url)}
    if len(folders) > 1:
        raise ConfigurationError(f"store and backplane: {EMBEDDED} is one engine; give both the same folder")
    return folders.pop() if folders else None


def _folder_of(url: str) -> Path:
    """`embedded:` alone is `postroom-data/workers`, `embedded:///x` is relative, `embedded:////x` absolute."""
    rest = url.removeprefix(EMBEDDED).removeprefix("///")
    if rest.startswith("//"):
        raise ConfigurationError(f"{url}: write {EMBEDDED}///FOLDER; two slashes more for a whole path")
    return Path(rest) if rest.strip("/") else _FOLDER


def _try(engines: Engines) -> None:
    directory_of(open_store(engines.store), engines.store)
    named = Settings(store=engines.store, backplane=engines.backplane)
    url = backplane_url(named)
    if not url:
        scheme = engines.store.partition(":")[0]
        raise ConfigurationError(
            f"backplane: workers talk over one, and {scheme}: is none: name one, such as nats://HOST, or"
            f" {EMBEDDED} where all nodes are on this machine"
        )
    open_backplane(url)


def _keep_what_there_is(settings: Settings) -> None:
    # Nobody should find mailboxes empty because there is a worker more.
    file = file_of(Settings().store)
    if settings.store == EMBEDDED and file is not None and file.exists() and not _FOLDER.exists():
        raise ConfigurationError(
            f"store: {file} has the messages of one process, which several workers cannot share: name a store,"
            f" or begin anew beside it with {EMBEDDED}///{_FOLDER}"
        )


def left_behind(settings: Settings) -> Path | None:
    """The embedded engine's folder that a single process with the default store does not look into, if there is one."""
    return _FOLDER if settings.store == Settings().store and (_FOLDER / "appendonlydir").exists() else None
