"""Where a key stands in a TOML file: tomllib reads values, but tells no lines."""

import re
from collections.abc import Sequence

_TABLE = re.compile(r"^\s*\[(\[)?\s*([^\]]+?)\s*\]")
_KEY = re.compile(r"^\s*((?:[\w-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[\w-]+|\"[^\"]*\"|'[^']*'))*)\s*=")

_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"""|\'\'\'.*?\'\'\'|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|#[^\n]*|[\[\]{}]|\n', re.DOTALL
)


class Lines:
    """The line of each table and key of a TOML text, by path; of `[[x]]` the path has the table's number."""

    def __init__(self, text: str, name: str) -> None:
        self._name = name
        self._found: dict[tuple[str | int, ...], int] = {}
        self._counts: dict[str, int] = {}
        prefix: tuple[str | int, ...] = ()
        begun = _begun(text)
        for number, line in enumerate(text.split("\n"), 1):
            if number not in begun:
                continue
            if table := _TABLE.match(line):
                prefix = self._table(_keys(table[2]), array=table[1] is not None)
                self._found.setdefault(prefix, number)
            elif key := _KEY.match(line):
                path = (*prefix, *_keys(key[1]))
                for end in range(len(prefix) + 1, len(path) + 1):
                    self._found.setdefault(path[:end], number)

    def _table(self, keys: list[str], *, array: bool) -> tuple[str | int, ...]:
        name = ".".join(keys)
        if array:
            self._counts[name] = self._counts.get(name, -1) + 1
            return (*keys, self._counts[name])
        if keys[0] in self._counts:
            return (keys[0], self._counts[keys[0]], *keys[1:])
        return tuple(keys)

    def knows(self, path: Sequence[str | int]) -> bool:
        """Whether the file itself has this table or key."""
        return tuple(path) in self._found

    def where(self, path: Sequence[str | int]) -> str:
        """`file:line` of the key, or of the nearest thing around it; `file` alone where nothing is found."""
        at = tuple(int(part) if isinstance(part, str) and part.isdigit() else part for part in path)
        while at:
            if at in self._found:
                return f"{self._name}:{self._found[at]}"
            at = at[:-1]
        return self._name


def _begun(text: str) -> set[int]:
    """The lines that begin with a table or key, not within a string or list that goes over several."""
    found, number, depth = {1}, 1, 0
    for token in _TOKEN.finditer(text):
        what = token[0]
        number += what.count("\n")
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(what, 0)
        if what == "\n" and depth == 0:
            found.add(number)
    return found


def _keys(text: str) -> list[str]:
    return [part.strip().strip("\"'").replace("_", "-") for part in text.split(".")]
