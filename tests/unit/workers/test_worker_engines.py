"""What several workers share, as the settings say it."""

from pathlib import Path
from typing import Any

import pytest

from postroom.config import Settings, load
from postroom.errors import ConfigurationError
from postroom.store import open_store
from postroom.workers import check, left_behind, needed


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_several_workers_have_the_embedded_store_unless_one_is_named() -> None:
    assert load(None, {}, {"workers": 2}).store == "embedded:"
    assert load(None, {"POSTROOM_WORKERS": "2"}, {}).store == "embedded:"
    assert load(None, {}, {"workers": 1}).store == Settings().store
    assert load(None, {}, {"workers": 2, "store": Settings().store}).store == Settings().store
    base = Settings(workers=2, store="redis://db")
    assert load(None, {}, {}, base=base).store == "redis://db"
    assert load(None, {}, {}, base=Settings(workers=2)).store == "embedded:"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, False),
        ({"workers": 2}, True),
        ({"store": "embedded:"}, True),
        ({"store": "redis://x", "backplane": "embedded:"}, True),
        ({"store": "redis://x"}, False),
    ],
)
def test_who_needs_a_keeper(given: dict[str, Any], wanted: bool) -> None:
    assert needed(load(None, {}, given)) is wanted


@pytest.mark.parametrize(
    ("store", "folder"),
    [
        ("embedded:", "postroom-data/workers"),
        ("embedded:///", "postroom-data/workers"),
        ("embedded:///mine", "mine"),
        ("embedded:////var/lib/mine", "/var/lib/mine"),
    ],
)
def test_the_folder_of_the_embedded_engine(store: str, folder: str) -> None:
    engines = check(Settings(workers=2, store=store))
    assert engines.folder == Path(folder)
    assert engines.at("redis+unix:///v.sock").store == "redis+unix:///v.sock"


def test_the_embedded_engine_may_carry_messages_beside_another_store() -> None:
    engines = check(Settings(workers=2, store="redis://db", backplane="embedded:")).at("redis+unix:///v.sock")
    assert (engines.store, engines.backplane) == ("redis://db", "redis+unix:///v.sock")
    assert check(Settings(workers=2, store="redis://db")).folder is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (Settings(workers=3, store="sqlite:"), "store: sqlite: is for one process, and 3 workers are several"),
        (Settings(workers=2, store="memory://x"), "store: memory: is for one process"),
        (Settings(workers=2, store="redis://x", backplane="memory:"), "backplane: memory: is for one process"),
        (Settings(workers=2, store="embedded:", backplane="embedded:///x"), "is one engine"),
        (Settings(workers=2, store="embedded://here"), "write embedded:///FOLDER"),
        (Settings(workers=2, store="mongodb://x"), "no store serves"),
    ],
)
def test_what_cannot_be_shared_is_refused(settings: Settings, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check(settings)
    assert said in str(caught.value)


def test_messages_of_one_process_are_not_left_behind_unseen(tmp_path: Path) -> None:
    file = tmp_path / "postroom-data" / "postroom.db"
    file.parent.mkdir()
    file.touch()
    with pytest.raises(ConfigurationError, match="has the messages of one process"):
        check(Settings(workers=2, store="embedded:"))
    assert check(Settings(workers=2, store="embedded:///postroom-data/workers")).folder is not None
    (tmp_path / "postroom-data" / "workers").mkdir()
    assert check(Settings(workers=2, store="embedded:")).folder is not None, "it was begun beside the file before"


def test_messages_of_several_workers_are_remembered(tmp_path: Path) -> None:
    assert left_behind(Settings()) is None
    (tmp_path / "postroom-data" / "workers" / "appendonlydir").mkdir(parents=True)
    assert left_behind(Settings()) == Path("postroom-data/workers")
    assert left_behind(Settings(store="redis://x")) is None


def test_a_node_by_itself_does_not_start_the_engine() -> None:
    with pytest.raises(ConfigurationError, match="what `postroom serve` starts for its workers"):
        open_store("embedded:")
