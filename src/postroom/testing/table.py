"""What held of which contract, engine by engine, as a page of Markdown: `python -m postroom.testing.table REPORT...`.

The reports are those of `--postroom-report` (see `plugin`).
"""

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

TITLES: Final = {
    "BackplaneContract": "Backplanes",
    "LogStoreContract": "Logs",
    "DurableLogStoreContract": "Logs after a restart",
    "TransactionContract": "Transactions",
    "CursorStoreContract": "Cursors",
    "DurableCursorStoreContract": "Cursors after a restart",
    "DirectoryStoreContract": "Directories",
    "StoreFaultContract": "Stores, hurt",
    "DirectoryFaultContract": "Directories, hurt",
    "TransportContract": "Transports",
}
_SIGNS: Final = {"passed": "yes", "failed": "NO", "skipped": "-"}
_HEAD: Final = """# Engines

Made from what the conformance kit found, never written by hand: `make engines`.
Each row is a test of the kit, by its name.
`-`: it could not be asked of this engine, for example because there is no server that could be restarted.
To certify an engine of your own: [certify an engine](../how-to/certify-an-engine.md).
"""

Cells = Mapping[str, Mapping[str, str]]


def page(rows: Iterable[Mapping[str, str]]) -> str:
    """The page that these outcomes make."""
    contracts: dict[str, dict[str, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        contracts[row["contract"]][row["test"]][row["engine"]] = row["outcome"]
    parts = [_HEAD]
    for contract, title in TITLES.items():
        if contract in contracts:
            parts.append(f"## {title}\n\n{_table(contracts[contract])}")
    return "\n".join(parts)


def _table(tests: Cells) -> str:
    engines = sorted({engine for cells in tests.values() for engine in cells})
    lines = [f"| | {' | '.join(engines)} |", f"| --- |{' --- |' * len(engines)}"]
    for test, cells in tests.items():
        signs = (_SIGNS[cells.get(engine, "skipped")] for engine in engines)
        lines.append(f"| {sentence(test)} | {' | '.join(signs)} |")
    return "\n".join(lines) + "\n"


def sentence(test: str) -> str:
    """What a test's name says."""
    return test.removeprefix("test_").replace("_s_", "'s ").replace("_", " ")


def main(files: Sequence[str]) -> None:
    """Print the page that the reports in `files` make."""
    rows = [row for file in files for row in json.loads(Path(file).read_text(encoding="utf-8"))]
    sys.stdout.write(page(rows))


if __name__ == "__main__":
    main(sys.argv[1:])
