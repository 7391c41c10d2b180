"""Each row of the table of STOMP's requirements names a test that there is."""

import ast
import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs/reference/stomp.md").read_text(encoding="utf-8")
_ROW: Final = re.compile(
    r"^\| (?P<section>[^|]+) \| (?P<said>[^|]+) \| (?P<level>[^|]+) \| (?P<who>[^|]+) \| (?P<test>.+) \|$"
)
_TEST: Final = re.compile(r"`(test_\w+\.py)::(test_\w+)`")
_SPECIFICATIONS: Final = ("test_stomp_1_0.py", "test_stomp_1_1.py", "test_stomp_1_2.py")


def rows(version: str) -> list[re.Match[str]]:
    """The rows of a version's table, without its head."""
    part = PAGE.split(f"\n### STOMP {version}\n")[1].split("\n### ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")][2:]
    found = [_ROW.match(line) for line in lines]
    assert all(found), [line for line, row in zip(lines, found, strict=True) if row is None]
    return [row for row in found if row is not None]


def names_in(file: Path) -> set[str]:
    """The names of the tests in a file."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {node.name for node in functions if node.name.startswith("test_")}


@pytest.fixture(scope="module")
def existing() -> set[tuple[str, str]]:
    """All tests, by file name and name."""
    return {(file.name, name) for file in (ROOT / "tests").rglob("test_*.py") for name in names_in(file)}


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2"])
def test_every_row_names_a_test(existing: set[tuple[str, str]], version: str) -> None:
    found = rows(version)
    assert len(found) >= 15
    for row in found:
        named = _TEST.fullmatch(row["test"])
        assert named is not None, row[0]
        assert (named[1], named[2]) in existing, row[0]
        assert row["level"] in ("MUST", "MUST NOT", "SHOULD", "MAY"), row[0]
        assert row["who"] in ("server", "client", "both"), row[0]


def test_a_row_stands_once() -> None:
    for version in ("1.0", "1.1", "1.2"):
        said = [(row["section"], row["said"]) for row in rows(version)]
        assert len(said) == len({*said})


@pytest.mark.parametrize("name", _SPECIFICATIONS)
def test_every_test_of_a_specification_has_a_row(name: str) -> None:
    (file,) = (ROOT / "tests/spec/stomp").glob(name)
    assert names_in(file) - {named for _, named in _TEST.findall(PAGE)} == set()
