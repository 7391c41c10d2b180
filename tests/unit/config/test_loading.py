"""Settings: what overrides what, and that a mistake is told with its place."""

from pathlib import Path

import pytest

from postroom.channel import Permission
from postroom.config import Settings, check_authentication, load
from postroom.errors import ConfigurationError


def write(folder: Path, text: str) -> Path:
    file = folder / "postroom.toml"
    file.write_text(text)
    return file


def test_without_anything_the_defaults_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(None, {}, {}) == Settings()


def test_the_file_is_found_where_one_starts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "port = 7000\n")
    monkeypatch.chdir(tmp_path)
    assert load(None, {}, {}).port == 7000


def test_file_environment_and_command_line_override_one_another(tmp_path: Path) -> None:
    file = write(tmp_path, 'port = 7000\nhost = "::1"\nnode_id = "a"\n[limits]\nconnect-seconds = "5s"\n')
    settings = load(
        file, {"POSTROOM_PORT": "7001", "POSTROOM_HOST": "0.0.0.0", "HOME": "/"}, {"port": 7002, "host": None}
    )
    assert (settings.port, settings.host, settings.node_id) == (7002, "0.0.0.0", "a")
    assert settings.limits.connect_seconds == 5.0


def test_nested_settings_come_from_the_environment_too(tmp_path: Path) -> None:
    environ = {
        "POSTROOM_AUTH_COOKIE_SECRET": "s" * 32,
        "POSTROOM_LIMITS_MAX_MESSAGE_BYTES": "64KiB",
        "POSTROOM_ORIGINS": "https://a.example,https://b.example",
    }
    settings = load(write(tmp_path, ""), environ, {})
    assert settings.auth.cookie is not None
    assert settings.auth.cookie.secret == "s" * 32
    assert settings.limits.max_message_bytes == 65_536
    assert settings.origins == ("https://a.example", "https://b.example")


def test_channels_are_tables(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        """
[[channel]]
code = "CHAT"
description = "Chat"
destination = "/user/*/topic/reply"
delivery = "durable"
proof = "handled"
retention = { days = 2, max_messages = 5, on_overflow = "drop-oldest", max_bytes = "1MiB" }
send = ["user:anna", "role:staff"]
subscribe = "everyone"

[[channel]]
code = "NEWS"
destination = "/topic/news"
history = 10
send = "nobody"
""",
    )
    chat, news = load(file, {}, {}).channels
    assert (chat.code, chat.durable, chat.proof) == ("CHAT", True, "handled")
    assert (chat.retention.seconds, chat.retention.max_messages, chat.retention.max_bytes) == (172_800, 5, 1 << 20)
    assert chat.send == Permission(everyone=False, users=frozenset({"anna"}), roles=frozenset({"staff"}))
    assert (news.history, news.send) == (10, Permission(everyone=False))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prot = 1\n", "postroom.toml:1: there is no setting prot; did you mean port?"),
        ("\nport = 'x'\n", "postroom.toml:2: port: expected `int`, got `str`"),
        ("[limits]\n\nsesions = 1\n", "postroom.toml:3: there is no setting limits.sesions; did you mean sessions?"),
        ("port = \n", "postroom.toml:1: this is not TOML"),
        ("[[channel]]\ncode = 'A'\ndestination = '/topic/x'\nfoo = 1\n", "postroom.toml:4: channel A: there is no foo"),
        ("[[channel]]\ncode = 'A'\n", "postroom.toml:1: channel A: destination is missing"),
        ("[[channel]]\ncode = 'A'\ndestination = '/topic/x'\nhistory = 'x'\n", "postroom.toml:4: channel A: history"),
        ("[[channel]]\ncode = 'A'\ndestination = '/topic/x'\nsend = 'bob'\n", "postroom.toml:4: channel A: send"),
        (
            (
                "[[channel]]\ncode = 'A'\ndestination = '/topic/x'\n[[channel]]\ncode = 'B'\n"
                "destination = '/topic/y'\ndelivery = 'durable'\n"
            ),
            "postroom.toml:7: channel B:",
        ),
        (
            "[[channel]]\ncode='A'\ndestination='/user/*/x'\nretention = {max_massages = 1}\n",
            "postroom.toml:4: channel A: retention has no max_massages",
        ),
        (
            "[[channel]]\ncode='A'\ndestination='/topic/x'\n[[channel]]\ncode='A'\ndestination='/topic/y'\n",
            "postroom.toml:5: channel A: the code is used twice",
        ),
    ],
)
def test_a_mistake_is_told_in_one_line_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigurationError) as error:
        load(file, {}, {})
    assert "\n" not in str(error.value)
    assert said in str(error.value).replace(f"{tmp_path}/", "")


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"missing.toml: cannot be read: No such file"):
        load(tmp_path / "missing.toml", {}, {})


def test_an_unknown_variable_is_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="POSTROOM_PROT; did you mean POSTROOM_PORT"):
        load(write(tmp_path, ""), {"POSTROOM_PROT": "1"}, {})


def test_a_wrong_variable_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="environment or command line: port"):
        load(write(tmp_path, ""), {"POSTROOM_PORT": "many"}, {})


def test_nobody_walks_in_by_accident() -> None:
    with pytest.raises(ConfigurationError, match="no authentication is configured"):
        check_authentication(Settings())
    check_authentication(Settings(dev=True))


def test_the_example_file_says_what_the_defaults_are(monkeypatch: pytest.MonkeyPatch) -> None:
    example = Path(__file__).parents[3] / "postroom.toml.example"
    settings = load(example, {}, {})
    assert settings.limits == Settings().limits
    assert settings.delivery == Settings().delivery
    assert settings.heart_beat == Settings().heart_beat
    assert {channel.code for channel in settings.channels} == {"CHAT", "NEWS"}
