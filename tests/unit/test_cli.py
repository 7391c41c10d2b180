"""The command line: errors are one clear line."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from postroom.cli import main


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, arguments)
    return result.exit_code, result.output


def test_help_names_the_commands() -> None:
    code, said = run("--help")
    assert code == 0
    for command in ("serve", "demo", "check-config", "bench"):
        assert command in said


def test_serving_without_authentication_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = run("serve")
    assert code == 2
    assert said.startswith("postroom: no authentication is configured")
    assert said.count("\n") == 1


def test_check_config_says_what_the_settings_come_to(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text(
        'dev = true\n[[channel]]\ncode = "CHAT"\ndestination = "/user/*/topic/reply"\ndelivery = "durable"\n'
    )
    code, said = run("check-config", "--config", str(file))
    assert code == 0
    assert said.startswith("ok: ")
    assert "CHAT" in said


def test_check_config_names_the_line_that_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text("dev = true\n\nprot = 1\n")
    code, said = run("check-config", "--config", str(file))
    assert code == 2
    assert said == f"postroom: {file}:3: there is no setting prot; did you mean port?\n"


def test_an_unknown_store_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = run("serve", "--dev", "--store", "mongodb://x")
    assert code == 2
    assert "no store serves 'mongodb://x'" in said


def test_an_application_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, why in (
        ("nothing", "module:attribute"),
        ("missing_module:app", "No module"),
        ("json:dumps", "no Postroom"),
    ):
        code, said = run("serve", name, "--dev", "--store", "memory:")
        assert code == 2
        assert why in said
