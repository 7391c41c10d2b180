"""The place of what is only found to be wrong when something is made of it: a key that does not fit, a store."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from postroom.config.loading import Keys, lines_of
from postroom.errors import ConfigurationError

_NAMED: Final = re.compile(r"([a-z-]+(?:\.[a-z-]+)*): ")


@contextmanager
def placed(path: Path | None, *keys: str) -> Iterator[None]:
    """Put the file and line of the setting before the sentence of a ConfigurationError that is raised inside.

    The setting is the one that the sentence begins with (`auth.cookie: the secret ...`) or speaks of, else `keys`.
    What does not stand in the file (`path`, as in `load`) stays as it is.
    """
    try:
        yield
    except ConfigurationError as error:
        lines, tree = lines_of(path)
        said = str(error)
        begins = _NAMED.match(said)
        at: Keys = tuple(begins[1].split(".")) if begins and begins[1].partition(".")[0] == keys[0] else keys
        if not lines.knows(at):
            raise
        raise ConfigurationError(f"{lines.where((*at, *_spoken_of(tree, at, said)))}: {said}") from error


def _spoken_of(tree: Mapping[str, Any], at: Keys, said: str) -> Keys:
    """The key below `at` that the sentence names first, if it names one."""
    table: Any = tree
    for key in at:
        table = table.get(key) if isinstance(table, Mapping) else None
    if not isinstance(table, Mapping):
        return ()
    found = {key: place for key in table if (place := re.search(rf"\b{re.escape(key)}\b(?!-)", said)) is not None}
    return (min(found, key=lambda key: (found[key].start(), -len(key))),) if found else ()
