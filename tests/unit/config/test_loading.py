"""Settings: what overrides what, and that a mistake is told with its place."""

import contextlib
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.channel import Permission
from postroom.config import Settings, check_authentication, load
from postroom.errors import ConfigurationError


def write(folder: Path, text: str) -> Path:
    file = folder / "postroom.toml"
    file.write_text(text, encoding="utf-8", newline="")
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
        ("[limits]\n\nsessionz = 1\n", "postroom.toml:3: there is no setting limits.sessionz; did you mean sessions?"),
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


CHANNEL = "[[channel]]\ncode = 'A'\ndestination = '/user/*/x'\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("port = 65536\n", "postroom.toml:1: port: expected `int` <= 65535"),
        ("drain-seconds = nan\n", "postroom.toml:1: drain-seconds"),
        ("drain-seconds = '2d'\n", "postroom.toml:1: drain-seconds"),
        ("[limits]\nsessions = 0\n", "postroom.toml:2: limits.sessions: expected `int` >= 1"),
        ("[limits]\nconnect-seconds = 0\n", "postroom.toml:2: limits.connect-seconds"),
        ("[heart-beat]\nsend-ms = -1\n", "postroom.toml:2: heart-beat.send-ms"),
        ("node-id = ''\n", "postroom.toml:1: node-id"),
        ('node-id = "a\\nb"\n', "postroom.toml:1: node-id"),
        ("node-id = 'a'\nnode_id = 'b'\n", "postroom.toml:1: node_id is given twice"),
        ("[prefixes]\nusr = '/x'\n", "postroom.toml:2: there is no setting prefixes.usr; did you mean user?"),
        ("[prefixes]\nuser = 'x'\n", "postroom.toml:2: prefixes.user: 'x' must begin with '/'"),
        ("[prefixes]\napp = ['/a', '/b/']\n", "postroom.toml:2: prefixes.app: '/b/' must begin with '/', and not end"),
        ("[prefixes]\nuser = '/topic'\n", "postroom.toml:2: prefixes.user: '/topic' has one meaning"),
        ("[endpoints]\nstomp = 'ws'\n", "postroom.toml:2: endpoints.stomp"),
        (
            "[endpoints]\nstomp = '/chat-websocket'\n",
            "postroom.toml:2: endpoints.stomp: stomp and sockjs must be different",
        ),
        ("origins = ['chat.example']\n", "postroom.toml:1: origins: 'chat.example' must be a scheme and a host"),
        ("origins = ['https://chat.example/']\n", "postroom.toml:1: origins"),
        ("auth = 3\n", "postroom.toml:1: auth: expected `object`, got `int`"),
        ("[auth.cookie]\nname = 'x'\n", "postroom.toml:1: auth.cookie: secret is missing"),
        ("[auth.jwt]\nalgorithms = []\n", "postroom.toml:2: auth.jwt.algorithms"),
        (
            "[auth.jwt]\nalgorithms = ['RS256']\njwks-fil = 'x'\n",
            "postroom.toml:3: there is no setting auth.jwt.jwks-fil;",
        ),
        ('node-id = """\nport = 3\n"""\nport = "x"\n', "postroom.toml:4: port: expected"),
        ("origins = [\n  '*', # port = 'x'\n]\nprot = 1\n", "postroom.toml:4: there is no setting prot"),
        ("port = 1 # '\r\nhost = 'a' # [\r\nprot = 3\r\n", "postroom.toml:3: there is no setting prot"),
        ("channel = 3\n", "postroom.toml:1: write each channel as a table of its own"),
        ("channel = [{code = 'A', destination = '/a'}, {code = 'B'}]\n", "postroom.toml:1: channel B: destination is"),
        (CHANNEL + "retention = {days = '7'}\n", "postroom.toml:4: channel A: retention: days is a number"),
        (CHANNEL + "retention = {days = 7, seconds = 7}\n", "postroom.toml:4: channel A: retention: days and seconds"),
        (CHANNEL + "retention = {seconds = nan}\n", "postroom.toml:4: channel A: retention"),
        (
            CHANNEL + "retention = {max_messages = 'x'}\n",
            "postroom.toml:4: channel A: retention: max_messages: expected",
        ),
        (CHANNEL + "[channel.retention]\nmax-messages = 0\n", "postroom.toml:4: channel A: retention must be positive"),
        (CHANNEL + "send = ['user:']\n", "postroom.toml:4: channel A: send: a user name has 1 to 255"),
        (CHANNEL + "send = ['role:']\n", "postroom.toml:4: channel A: send: write"),
    ],
)
def test_what_cannot_work_is_told_before_anything_starts(tmp_path: Path, text: str, said: str) -> None:
    test_a_mistake_is_told_in_one_line_with_its_place(tmp_path, text, said)


@given(
    st.recursive(
        st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3), max_leaves=4
    ),
    st.sampled_from(sorted(Settings.__struct_encode_fields__)),
    st.sampled_from(["code", "destination", "delivery", "retention", "history", "proof", "send", "subscribe"]),
)
def test_no_value_does_worse_than_be_refused(
    tmp_path_factory: pytest.TempPathFactory, value: object, key: str, of_channel: str
) -> None:
    folder = tmp_path_factory.mktemp("toml")
    for text in (
        f"{key} = {toml(value)}\n",
        f"{CHANNEL}{of_channel} = {toml(value)}\n",
        f"{CHANNEL}r = {toml(value)}\n",
    ):
        with contextlib.suppress(ConfigurationError):
            load(write(folder, text), {}, {})


def toml(value: object) -> str:
    return json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf")


def test_a_secret_may_come_from_the_environment_and_the_rest_from_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "[auth.cookie]\nname = 'chat'\n[auth.jwt]\nalgorithms = ['HS256']\n")
    environ = {"POSTROOM_AUTH_COOKIE_SECRET": "s" * 32, "POSTROOM_AUTH_JWT_KEY": "k" * 32}
    auth = load(file, environ, {}).auth
    assert auth.cookie is not None
    assert (auth.cookie.name, auth.cookie.secret) == ("chat", "s" * 32)
    assert auth.jwt is not None
    assert (auth.jwt.algorithms, auth.jwt.key) == (("HS256",), "k" * 32)


def test_what_the_environment_leaves_out_is_told(tmp_path: Path) -> None:
    file = write(tmp_path, "")
    for environ, said in (
        (
            {"POSTROOM_AUTH_JWT_KEY": "k" * 32},
            "the environment, POSTROOM_AUTH_JWT_KEY: auth.jwt: algorithms is missing",
        ),
        ({"POSTROOM_ORIGINS": "x"}, "the environment, POSTROOM_ORIGINS: origins: 'x' must be"),
        ({"POSTROOM_DEV": "perhaps"}, "the environment, POSTROOM_DEV: expected `bool`"),
        ({"POSTROOM_LIMITS_SESSIONS": "0"}, "the environment, POSTROOM_LIMITS_SESSIONS: expected `int` >= 1"),
    ):
        with pytest.raises(ConfigurationError, match=re.escape(said)):
            load(file, environ, {})
    with pytest.raises(ConfigurationError, match="auth: expected"):
        load(write(tmp_path, "auth = 3\n"), {"POSTROOM_AUTH_JWT_KEY": "k" * 32}, {})


def test_lists_and_truths_come_from_the_environment(tmp_path: Path) -> None:
    environ = {
        "POSTROOM_AUTH_JWT_ALGORITHMS": "RS256, ES256",
        "POSTROOM_PREFIXES_APP": "/app,/message",
        "POSTROOM_DEV": "true",
        "POSTROOM_DRAIN_SECONDS": "250ms",
    }
    settings = load(write(tmp_path, ""), environ, {})
    assert settings.auth.jwt is not None
    assert settings.auth.jwt.algorithms == ("RS256", "ES256")
    assert (settings.prefixes.app, settings.dev, settings.drain_seconds) == (("/app", "/message"), True, 0.25)


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    assert load(write(tmp_path, "\ufeffport = 1\n"), {}, {}).port == 1


def test_a_channel_of_users_is_durable_unless_it_says_otherwise(tmp_path: Path) -> None:
    text = CHANNEL + "[[channel]]\ncode = 'B'\ndestination = '/user/*/y'\ndelivery = 'transient'\n"
    assert [channel.durable for channel in load(write(tmp_path, text), {}, {}).channels] == [True, False]


def test_a_permission_names_a_user_in_whatever_form(tmp_path: Path) -> None:
    channel = load(write(tmp_path, CHANNEL + "send = ['user:Zoe\u0308']\n"), {}, {}).channels[0]
    assert channel.send.users == {"Zo\u00eb"}


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"missing.toml: cannot be read: No such file"):
        load(tmp_path / "missing.toml", {}, {})


def test_an_unknown_variable_is_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="POSTROOM_PROT; did you mean POSTROOM_PORT"):
        load(write(tmp_path, ""), {"POSTROOM_PROT": "1"}, {})


def test_a_wrong_variable_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"the environment, POSTROOM_PORT: expected `int`, got `str`"):
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


@pytest.mark.parametrize("auth", ["cookie", "header"])
def test_any_origin_and_what_a_browser_adds_by_itself_are_refused_together(tmp_path: Path, auth: str) -> None:
    tables = {
        "cookie": f'[auth.cookie]\nsecret = "{"s" * 32}"\n',
        "header": '[auth.header]\nname = "X-User"\ntrusted = ["10.0.0.0/8"]\n',
    }
    file = write(tmp_path, f'port = 1\norigins = ["https://a.example", "*"]\n{tables[auth]}')
    with pytest.raises(ConfigurationError, match=rf"postroom.toml:2: origins: '\*' and \[auth.{auth}\]"):
        load(file, {}, {})
    assert load(write(tmp_path, f'origins = ["https://a.example"]\n{tables[auth]}'), {}, {}).origins


def test_any_origin_may_be_let_in_where_tokens_say_who_it_is(tmp_path: Path) -> None:
    file = write(tmp_path, f'origins = ["*"]\n[auth.jwt]\nalgorithms = ["HS256"]\nkey = "{"s" * 32}"\n')
    assert load(file, {}, {}).origins == ("*",)
