"""The short form of `make fuzz`: each target goes through its corpus, and through what hypothesis makes of tokens."""

from pathlib import Path
from typing import Final

import pytest
from fuzz.targets import TARGETS, tokens_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

_CORPUS: Final = Path(__file__).parents[2] / "fuzz" / "corpus"
_EXAMPLES: Final = 600


def seeds(name: str) -> list[bytes]:
    """What the corpus of a target holds."""
    return [file.read_bytes() for file in sorted((_CORPUS / name).iterdir())]


def mutated(name: str) -> st.SearchStrategy[bytes]:
    """Bytes as an attacker might send them: tokens in any order, seeds with something put in or cut out."""
    token = st.sampled_from(tokens_of(name)) | st.binary(max_size=4)
    made = st.lists(token, max_size=24).map(b"".join)
    cut = st.tuples(st.sampled_from(seeds(name)), st.integers(0, 200), st.integers(0, 20), made).map(
        lambda parts: parts[0][: parts[1]] + parts[3] + parts[0][parts[1] + parts[2] :]
    )
    return made | cut | st.binary(max_size=64)


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_passes(name: str) -> None:
    assert seeds(name)
    for data in seeds(name):
        TARGETS[name](data)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", TARGETS)
def test_nothing_breaks_a_target(name: str) -> None:
    @settings(max_examples=_EXAMPLES, deadline=None, suppress_health_check=[*HealthCheck])
    @given(mutated(name))
    def run(data: bytes) -> None:
        TARGETS[name](data)

    run()
