"""The command line: errors are one clear line."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from postroom.cli import main
from postroom.errors import MissingExtra


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


def test_check_config_knows_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "postroom.toml").write_text("dev = true\nworkers = 3\n")
    code, said = run("check-config")
    assert code == 0
    assert said.startswith("ok: node-1, 3 workers on 127.0.0.1:8080, store embedded:\n")


def test_check_config_names_the_line_that_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text("dev = true\n\nprot = 1\n")
    code, said = run("check-config", "--config", str(file))
    assert code == 2
    assert said == f"postroom: {file}:3: there is no setting prot; did you mean port?\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[auth.cookie]\nname = 'x'\nsecret = 'short'\n",
            "x.toml:3: auth.cookie: the secret has 5 characters; at least 32 are needed",
        ),
        ("[auth.jwt]\nkey = 'short'\nalgorithms = ['HS256']\n", "x.toml:2: auth.jwt: the key has 5 characters"),
        ("[auth.jwt]\nkey = 'short'\nalgorithms = ['none']\n", "x.toml:3: auth.jwt: algorithms must be some of"),
        (
            "[auth.jwt]\nalgorithms = ['RS256']\nkey-file = '/nowhere.pem'\n",
            "x.toml:3: auth.jwt: key-file /nowhere.pem",
        ),
        ("trusted-proxies = ['10.0.0.1/8']\n", "x.toml:1: trusted-proxies: 10.0.0.1/8 has host bits set"),
        ("[auth.header]\nname = 'X-User'\ntrusted = ['10.0.0.1/8']\n", "x.toml:3: auth.header: trusted: 10.0.0.1/8"),
        ("dev = true\nstore = 'mongodb://x'\n", "x.toml:2: no store serves 'mongodb:'"),
        ("dev = true\nbackplane = 'mongodb://x'\n", "x.toml:2: no backplane serves 'mongodb:'"),
        ("dev = true\nstore = 'memory:'\n[tls]\ncertificate = 'no'\nkey = 'no'\n", "x.toml:4: tls: certificate no"),
        ("dev = true\n[prefixes]\nbroker = ['/topic']\nuser = '/topic'\n", "x.toml:4: prefixes.user: '/topic' has"),
        ("dev = true\n[endpoints]\nsockjs = '/ws'\n", "x.toml:3: endpoints.sockjs: stomp and sockjs must be"),
        ("dev = true\nworkers = 2\nstore = 'sqlite:///x.db'\n", "store: sqlite: is for one process, and 2 workers"),
        ("dev = true\nworkers = 0\n", "x.toml:2: workers: "),
        ("", "no authentication is configured"),
    ],
)
def test_check_config_finds_what_would_stop_the_server(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "x.toml"
    file.write_text(text)
    code, told = run("check-config", "--config", str(file))
    assert code == 2
    assert told.startswith("postroom: ")
    assert said in told
    assert told.count("\n") == 1
    assert [*tmp_path.iterdir()] == [file]


def test_the_settings_file_may_be_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.toml"
    file.write_text("dev = true\nport = 7001\n")
    monkeypatch.setenv("POSTROOM_CONFIG", str(file))
    code, said = run("check-config")
    assert code == 0
    assert "127.0.0.1:7001" in said


def test_an_option_that_is_missing_says_which_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise MissingExtra("postroom bench", "bench")

    monkeypatch.setattr("postroom.cli._bench", missing)
    code, said = run("bench", "idle")
    assert code == 1
    assert said == 'postroom: postroom bench needs an optional dependency: pip install "postroom[bench]"\n'


def test_a_port_that_is_taken_is_told_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "postroom", "serve", "--dev", "--port", str(port), "--store", "memory:"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"postroom: cannot listen on 127.0.0.1:{port}: Address already in use" in done.stderr
    assert "Traceback" not in done.stderr
    assert "DEVELOPMENT MODE" in done.stderr


def test_an_unknown_store_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = run("serve", "--dev", "--store", "mongodb://ann:s3cr3t@x")
    assert code == 2
    assert "no store serves 'mongodb:'" in said


def test_an_application_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raises.py").write_text("\nraise ValueError('boom')\n")
    (tmp_path / "mistyped.py").write_text("def x(:\n")
    (tmp_path / "contradicts.py").write_text(
        "from postroom import Channel, Postroom\n"
        "app = Postroom([Channel(code='A', destination='/topic/a', delivery='durable')])\n"
    )
    for name, why in (
        ("nothing", "module:attribute"),
        ("missing_module:app", "No module"),
        ("json:dumps", "no Postroom"),
        ("raises:app", "raises.py:2: ValueError: boom"),
        ("mistyped:app", "mistyped.py:1: "),
        ("contradicts:app", "channel A: delivery"),
    ):
        code, said = run("serve", name, "--dev", "--store", "memory:")
        assert code == 2
        assert why in said
