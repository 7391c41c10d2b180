"""The page of engines is made from what the kit asks now, and nothing on it failed."""

import re
from collections.abc import Mapping
from pathlib import Path

from postroom.testing.contracts.backplane import BackplaneContract
from postroom.testing.contracts.cursor_store import CursorStoreContract, DurableCursorStoreContract
from postroom.testing.contracts.directory_store import DirectoryStoreContract
from postroom.testing.contracts.log_store import DurableLogStoreContract, LogStoreContract
from postroom.testing.contracts.store_faults import DirectoryFaultContract, StoreFaultContract
from postroom.testing.contracts.transactions import TransactionContract
from postroom.testing.contracts.transport import TransportContract
from postroom.testing.table import TITLES, sentence

_ROOT = Path(__file__).parent.parent.parent
_CONTRACTS = (
    BackplaneContract,
    LogStoreContract,
    DurableLogStoreContract,
    TransactionContract,
    CursorStoreContract,
    DurableCursorStoreContract,
    DirectoryStoreContract,
    StoreFaultContract,
    DirectoryFaultContract,
    TransportContract,
)


def parts() -> Mapping[str, list[list[str]]]:
    """The rows of each table, by its heading."""
    text = (_ROOT / "docs/reference/engines.md").read_text(encoding="utf-8")
    found = {}
    for part in text.split("\n## ")[1:]:
        title, _, table = part.partition("\n")
        rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")]
        found[title] = [[cell.strip() for cell in row] for row in rows]
    return found


def test_each_test_of_the_kit_has_a_row() -> None:
    tables = parts()
    for contract in _CONTRACTS:
        asked = {sentence(name) for name in vars(contract) if name.startswith("test_")}
        assert {row[0] for row in tables[TITLES[contract.__name__]][2:]} == asked, "run make engines"


def test_nothing_failed() -> None:
    for title, (_, _, *rows) in parts().items():
        for row in rows:
            assert set(row[1:]) <= {"yes", "-"}, f"{title}: {row}"


def test_each_engine_has_a_column() -> None:
    named = set()
    for file in (_ROOT / "tests/contracts").glob("test_*.py"):
        named |= set(re.findall(r'^    engine = "(.+)"$', file.read_text(encoding="utf-8"), re.MULTILINE))
    assert {engine for head, *_ in parts().values() for engine in head[1:]} == named
