"""Logs: what a client sent starts no line of its own, in whatever way it gets there."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from postroom import logs

HOSTILE = "x\nERROR forged\r\x1b[2J\u2028\x00"


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    names = ("uvicorn", "uvicorn.error", "uvicorn.access", "asyncio")
    levels = {name: logging.getLogger(name).level for name in names}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, was in levels.items():
        logging.getLogger(name).setLevel(was)
    structlog.reset_defaults()


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_value_stays_on_its_line(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json" if form == "json" else "text")
    structlog.get_logger("a").info(HOSTILE, user=HOSTILE, several=[HOSTILE], table={HOSTILE: HOSTILE})
    logging.getLogger("uvicorn.error").warning("bad request: %s", HOSTILE)
    said = capsys.readouterr().err
    assert said.count("\n") == 2
    assert said.replace("\n", "").isprintable()


def test_an_exception_is_told_but_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "text")
    try:
        raise ValueError("\x1b[2J" + "é")
    except ValueError:
        structlog.get_logger("a").exception("failed")
        logging.getLogger("asyncio").exception("failed there")
    said = capsys.readouterr().err
    assert said.count("ValueError: \\x1b[2Jé") == 2
    assert "\x1b[2J" not in said


def test_json_is_one_object_a_line_with_level_time_and_name(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("warning", "json")
    structlog.get_logger("postroom.node").info("not told")
    structlog.get_logger("postroom.node").warning("told", user="Zoë")
    logging.getLogger("uvicorn.error").error("told too")
    ours, theirs = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (ours["event"], ours["level"], ours["logger"], ours["user"]) == ("told", "warning", "postroom.node", "Zoë")
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("told too", "error", "uvicorn.error")
    assert ours["timestamp"].endswith("Z")


def test_only_what_is_loud_enough_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("error", "text")
    structlog.get_logger("a").warning("quiet")
    logging.getLogger("b").warning("quiet")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:secret@db:6379/0", "redis://:***@db:6379/0"),
        ("redis://ann:s3cr3t@db", "redis://ann:***@db"),
        (
            "redis+sentinel://u:p@a:1,b:2/x?sentinel-password=hid&timeout=3",
            "redis+sentinel://u:***@a:1,b:2/x?sentinel-password=***&timeout=3",
        ),
        ("redis://db", "redis://db"),
        ("sqlite:///postroom-data/postroom.db", "sqlite:///postroom-data/postroom.db"),
        ("memory:", "memory:"),
    ],
)
def test_urls_are_shown_without_their_passwords(url: str, shown: str) -> None:
    assert logs.without_passwords(url) == shown
