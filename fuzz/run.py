"""Runs a target under atheris: python -m fuzz.run TARGET [libFuzzer's options, such as -max_total_time=60].

It starts with what `fuzz/corpus/TARGET` holds, and keeps what reaches new code in `fuzz/findings/TARGET`, for the next
run. What fails is written to `fuzz/findings` too: mend the code, and move the file, with a name that says what it is,
into the corpus, which the tests go through.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["postroom", "fuzz.targets"]):
    from fuzz.targets import TARGETS, tokens_of

_HERE = Path(__file__).parent


def main(name: str, options: list[str]) -> None:
    """Fuzz `name` until the options say that it is enough."""
    corpus, findings = _HERE / "corpus" / name, _HERE / "findings"
    grown = findings / name
    grown.mkdir(parents=True, exist_ok=True)
    words = findings / f"{name}.dict"
    lines = ("".join(f"\\x{byte:02x}" for byte in token) for token in tokens_of(name))
    words.write_text("".join(f'"{line}"\n' for line in lines), encoding="ascii")
    where = [f"-artifact_prefix={findings}/{name}-", f"-dict={words}", "-max_len=4096", "-timeout=10"]
    atheris.Setup([sys.argv[0], *where, *options, str(grown), str(corpus)], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python -m fuzz.run TARGET [OPTIONS]; there are {', '.join(TARGETS)}")
    main(sys.argv[1], sys.argv[2:])
