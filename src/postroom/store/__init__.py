"""The truth: logs and cursors. Engines are found by the URL's scheme among the entry points `postroom.stores`."""

from importlib.metadata import entry_points
from pathlib import Path
from typing import cast

from postroom.clock import Clock
from postroom.errors import ConfigurationError
from postroom.store.base import DirectoryStore, Store


def open_store(url: str, *, clock: Clock | None = None) -> Store:
    """The store that `url` names, not yet open. Raises ConfigurationError for a scheme that no engine serves.

    `clock` None: each engine's own; the conformance kit gives engines one that it turns by hand.
    """
    scheme = url.partition(":")[0]
    if scheme == "embedded":
        raise ConfigurationError("embedded: is what `postroom serve` starts for its workers; here name another store")
    engines = {entry.name: entry for entry in entry_points(group="postroom.stores")}
    if ":" not in url or scheme not in engines:
        known = ", ".join(f"{name}:" for name in sorted(engines))
        raise ConfigurationError(f"no store serves {scheme + ':' if ':' in url else url!r}: use one of {known}")
    engine = engines[scheme].load()
    store: Store = engine(url) if clock is None else engine(url, clock=clock)
    return store


def directory_of(store: Store, url: str) -> DirectoryStore:
    """The directory that `store` keeps too. Raises ConfigurationError where its engine keeps none."""
    if not serves_directory(url):
        known = ", ".join(f"{name}:" for name in sorted(_directories()))
        raise ConfigurationError(
            f"{url.partition(':')[0]}: is a store for one node; nodes of a cluster share one of {known}"
        )
    return cast("DirectoryStore", store)


def serves_directory(url: str) -> bool:
    """Whether the store that `url` names keeps a directory too."""
    return url.partition(":")[0] in _directories()


def _directories() -> set[str]:
    return {entry.name for entry in entry_points(group="postroom.directories")}


def file_of(url: str) -> Path | None:
    """The file that a store's URL names; None for a store that keeps none here.

    `sqlite:` alone is `postroom-data/postroom.db`, `sqlite:///x.db` is relative, `sqlite:////x.db` absolute.
    """
    scheme, _, rest = url.partition(":")
    if scheme != "sqlite":
        return None
    rest = rest.removeprefix("///")
    return Path(rest) if rest else Path("postroom-data/postroom.db")
