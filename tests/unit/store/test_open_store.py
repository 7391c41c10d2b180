import pytest

from postroom.errors import ConfigurationError
from postroom.store import open_store
from postroom.store.memory import MemoryStore
from postroom.store.sqlite import SQLiteStore


def test_the_scheme_names_the_engine() -> None:
    assert isinstance(open_store("memory:"), MemoryStore)
    assert isinstance(open_store("sqlite:///x.db"), SQLiteStore)


@pytest.mark.parametrize("url", ["", "sqlite", "redi://localhost", "/var/lib/x.db"])
def test_an_unknown_scheme_is_refused_with_those_that_exist(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"memory:, .*sqlite:"):
        open_store(url)
