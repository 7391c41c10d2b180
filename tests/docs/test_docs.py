"""The documentation is true: its code runs, and it names what there is."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

import postroom
from postroom.config import Settings
from postroom.metrics import Metrics

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("block", BLOCKS)
def test_python_blocks_run(block: str) -> None:
    compiled = compile(block, "block", "exec")
    if "asyncio.run(" not in block:  # those that need a running server are only compiled
        exec(compiled, {"__name__": "block"})


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_examples_say_how_they_are_used(example: Path) -> None:
    done = subprocess.run([sys.executable, str(example), "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout


def keys(kind: Any) -> list[str]:
    found: list[str] = []
    for field in msgspec.structs.fields(kind):
        inner = [t for t in (field.type, *getattr(field.type, "__args__", ())) if _is_struct(t)]
        found.extend(keys(inner[0]) if inner and field.encode_name != "channel" else [field.encode_name])
    return found


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def test_the_reference_names_every_setting() -> None:
    page = (ROOT / "docs/reference/settings.md").read_text(encoding="utf-8")
    missing = [key for key in keys(Settings) if key != "channel" and f"`{key}`" not in page]
    assert missing == []


def test_the_reference_names_every_metric() -> None:
    page = (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")
    missing = [name for name in Metrics.__slots__ if f"`postroom_{name}_total`" not in page]
    assert missing == []


def test_the_reference_has_every_public_name() -> None:
    page = (ROOT / "docs/reference/api.md").read_text(encoding="utf-8")
    for name in postroom.__all__:
        assert getattr(postroom, name).__doc__
        assert f".{name}\n" in page


def test_links_between_pages_lead_somewhere() -> None:
    link = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")
    broken = [
        f"{page.name}: {target}"
        for page in PAGES
        for target in link.findall(page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert broken == []


def test_nothing_is_said_of_how_it_was_made() -> None:
    words = re.compile(r"(/work/|\.library|shared/design)")
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in files:
        path = ROOT / name
        if path.suffix in (".md", ".py", ".toml", ".yml", ".mjs", ".js") and path != Path(__file__):
            assert not words.search(path.read_text(encoding="utf-8")), name
