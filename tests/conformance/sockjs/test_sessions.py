"""SockJS protocol 0.3.3: framing, the life of a session, and the transports over HTTP."""

import json
import re
import uuid
from urllib.parse import quote

import pytest
from tests.conformance.sockjs.test_places import NOT_CACHED, check_cors, same_type
from tests.support.http import Http, Reply, fetch

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
OTHER_OPEN = b'c[2010,"Another connection still open"]\n'
INTERRUPTED = b'c[1002,"Connection interrupted"]\n'


@pytest.fixture
def url() -> str:
    """A session of the echo service."""
    return f"/echo/000/{uuid.uuid4()}"


def poll(port: int, url: str) -> bytes:
    reply = fetch(port, "POST", url + "/xhr")
    assert reply.status == 200
    return reply.body


def send(port: int, url: str, *messages: str) -> None:
    reply = fetch(port, "POST", url + "/xhr_send", body=json.dumps(messages).encode())
    assert (reply.status, reply.body) == (204, b"")


def stream(connection: Http, url: str, *, prelude: int = 2049) -> Reply:
    reply = connection.ask("POST", url + "/xhr_streaming")
    assert reply.status == 200
    assert len(reply.chunk()) == prelude
    return reply


# ── protocol and framing ──────────────────────────────────────────────────────────────────────────────


def test_protocol_a_session_opens_sends_and_receives(port: int, url: str) -> None:
    assert poll(port, url) == b"o\n"
    send(port, url, "a")
    assert poll(port, url) == b'a["a"]\n'


def test_protocol_sending_to_an_unknown_session_is_not_found(port: int) -> None:
    assert fetch(port, "POST", "/echo/000/bad_session/xhr_send", body=b'["a"]').status == 404
    assert fetch(port, "POST", "/echo/000/bad_session/jsonp_send", headers=FORM, body=b"d=%5B%5D").status == 404


def test_protocol_only_one_request_may_receive(port: int, url: str) -> None:
    assert poll(port, url) == b"o\n"
    with Http(port) as waiting:
        waiting.send("POST", url + "/xhr")
        assert fetch(port, "GET", "/echo/info").status == 200
        assert poll(port, url) == OTHER_OPEN


def test_protocol_the_server_id_means_nothing(port: int) -> None:
    session = uuid.uuid4()
    assert poll(port, f"/echo/000/{session}") == b"o\n"
    send(port, f"/echo/000/{session}", "a")
    assert poll(port, f"/echo/999/{session}") == b'a["a"]\n'


def test_protocol_a_closed_session_says_so_again_and_again(port: int) -> None:
    url = f"/close/000/{uuid.uuid4()}"
    assert [poll(port, url) for _ in range(4)] == [b"o\n", *[b'c[3000,"Go away!"]\n'] * 3]


def test_protocol_what_comes_between_polls_waits_in_order(port: int, url: str) -> None:
    assert poll(port, url) == b"o\n"
    for number in range(5):
        send(port, url, str(number), f"{number}'")
    got = poll(port, url)
    assert json.loads(got[1:]) == [text for number in range(5) for text in (str(number), f"{number}'")]


def test_protocol_a_waiting_poll_gets_what_is_sent(port: int, url: str) -> None:
    assert poll(port, url) == b"o\n"
    with Http(port) as waiting:
        waiting.send("POST", url + "/xhr")
        send(port, url, "late")
        assert waiting.head().load().body == b'a["late"]\n'


# ── closing ───────────────────────────────────────────────────────────────────────────────────────────


def test_closing_a_closed_session_is_no_open_connection(port: int) -> None:
    url = f"/close/000/{uuid.uuid4()}"
    with Http(port) as first, Http(port) as second:
        one = stream(first, url)
        assert [one.chunk(), one.chunk()] == [b"o\n", b'c[3000,"Go away!"]\n']
        two = stream(second, url)
        assert two.chunk() == b'c[3000,"Go away!"]\n'
        assert [one.chunk(), two.chunk()] == [b"", b""]


def test_closing_the_second_stream_is_refused_and_ends(port: int, url: str) -> None:
    with Http(port) as first, Http(port) as second:
        assert stream(first, url).chunk() == b"o\n"
        two = stream(second, url)
        assert [two.chunk(), two.chunk()] == [OTHER_OPEN, b""]


def test_closing_an_aborted_stream_interrupts_the_session(port: int, url: str) -> None:
    with Http(port) as first, Http(port) as second, Http(port) as third:
        assert stream(first, url).chunk() == b"o\n"
        assert stream(second, url).chunk() == OTHER_OPEN
        first.close()
        assert stream(third, url).chunk() == INTERRUPTED


def test_closing_an_aborted_poll_interrupts_the_session(port: int, url: str) -> None:
    assert poll(port, url) == b"o\n"
    with Http(port) as waiting:
        waiting.send("POST", url + "/xhr")
        assert fetch(port, "GET", "/echo/info").status == 200
        assert poll(port, url) == OTHER_OPEN
    assert poll(port, url) == INTERRUPTED
    assert poll(port, url) == INTERRUPTED


# ── xhr ───────────────────────────────────────────────────────────────────────────────────────────────


def test_xhr_polling_has_the_headers_of_the_protocol(port: int, url: str) -> None:
    reply = fetch(port, "POST", url + "/xhr")
    assert reply.body == b"o\n"
    assert same_type(reply, "application/javascript;charset=UTF-8")
    assert reply["cache-control"] == NOT_CACHED
    assert (reply["expires"], reply["last-modified"]) == (None, None)
    check_cors(reply)
    reply = fetch(port, "POST", url + "/xhr_send", body=b'["x"]')
    assert (reply.status, reply.body) == (204, b"")
    assert same_type(reply, "text/plain;charset=UTF-8")
    assert reply["cache-control"] == NOT_CACHED
    check_cors(reply)


def test_xhr_the_asked_headers_are_allowed(port: int) -> None:
    for asked, allowed in (({"Access-Control-Request-Headers": "a, b, c"}, "a, b, c"), ({}, None)):
        reply = fetch(port, "POST", f"/echo/000/{uuid.uuid4()}/xhr", headers=asked)
        check_cors(reply)
        assert reply["access-control-allow-headers"] == allowed
    reply = fetch(port, "POST", f"/echo/000/{uuid.uuid4()}/xhr", headers={"Access-Control-Request-Headers": ""})
    assert not reply["access-control-allow-headers"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'["x', b"Broken JSON encoding."),
        (b"\xff", b"Broken JSON encoding."),
        (b"", b"Payload expected."),
        (b'"x"', b"Payload expected."),
        (b"{}", b"Payload expected."),
        (b"[1]", b"Payload expected."),
    ],
)
def test_xhr_send_says_what_is_wrong_and_the_session_lives_on(port: int, url: str, body: bytes, said: bytes) -> None:
    assert poll(port, url) == b"o\n"
    reply = fetch(port, "POST", url + "/xhr_send", body=body)
    assert reply.status == 500
    assert said in reply.body
    send(port, url, "a")
    assert poll(port, url) == b'a["a"]\n'


def test_xhr_send_takes_any_content_type(port: int, url: str) -> None:
    kinds = [
        "text/plain",
        "T",
        "application/json",
        "application/xml",
        "",
        "application/json; charset=utf-8",
        "text/xml; charset=utf-8",
        "text/xml",
    ]
    assert poll(port, url) == b"o\n"
    for kind in kinds:
        reply = fetch(port, "POST", url + "/xhr_send", body=b'["a"]', headers={"Content-Type": kind})
        assert (reply.status, reply.body) == (204, b"")
    assert poll(port, url) == b"a[" + b",".join([b'"a"'] * len(kinds)) + b"]\n"


def test_xhr_send_over_the_limit_is_refused(port: int, url: str) -> None:
    assert poll(port, url) == b"o\n"
    with Http(port) as connection:
        connection.send("POST", url + "/xhr_send", headers={"Content-Length": "9000000"}, body=b'["')
        reply = connection.head().load()
    assert reply.status == 413
    assert b"at most" in reply.body


def test_xhr_streaming_begins_with_two_kilobytes(port: int, url: str) -> None:
    with Http(port) as connection:
        reply = connection.ask("POST", url + "/xhr_streaming")
        assert same_type(reply, "application/javascript;charset=UTF-8")
        assert reply["cache-control"] == NOT_CACHED
        check_cors(reply)
        assert reply.chunk() == b"h" * 2048 + b"\n"
        assert reply.chunk() == b"o\n"
        send(port, url, "x")
        assert reply.chunk() == b'a["x"]\n'


def test_xhr_streaming_ends_at_the_response_limit(port: int, url: str) -> None:
    with Http(port) as connection:
        reply = stream(connection, url)
        assert reply.chunk() == b"o\n"
        message = "x" * 128
        for _ in range(31):
            send(port, url, message)
            assert reply.chunk() == f'a["{message}"]\n'.encode()
        assert reply.chunk() == b""
        send(port, url, "next")
        again = stream(connection, url)
        assert again.chunk() == b'a["next"]\n'


# ── eventsource ───────────────────────────────────────────────────────────────────────────────────────


def test_eventsource_carries_frames_as_events(port: int, url: str) -> None:
    with Http(port) as connection:
        reply = connection.ask("GET", url + "/eventsource")
        assert reply.status == 200
        assert same_type(reply, "text/event-stream;charset=UTF-8")
        assert reply["cache-control"] == NOT_CACHED
        assert [reply.chunk(), reply.chunk()] == [b"\r\n", b"data: o\r\n\r\n"]
        send(port, url, "x")
        assert reply.chunk() == b'data: a["x"]\r\n\r\n'
        send(port, url, "  \0\n\r ")
        assert reply.chunk() == b'data: a["  \\u0000\\n\\r "]\r\n\r\n'


def test_eventsource_ends_at_the_response_limit(port: int, url: str) -> None:
    with Http(port) as connection:
        reply = connection.ask("GET", url + "/eventsource")
        assert [reply.chunk(), reply.chunk()] == [b"\r\n", b"data: o\r\n\r\n"]
        message = "x" * 4096
        send(port, url, message)
        assert [reply.chunk(), reply.chunk()] == [f'data: a["{message}"]\r\n\r\n'.encode(), b""]


# ── htmlfile ──────────────────────────────────────────────────────────────────────────────────────────

HTML_HEAD = """<!doctype html>
<html><head>
  <meta http-equiv="X-UA-Compatible" content="IE=edge" />
  <meta http-equiv="Content-Type" content="text/html; charset=UTF-8" />
</head><body><h2>Don't panic!</h2>
  <script>
    document.domain = document.domain;
    var c = parent.callback;
    c.start();
    function p(d) {c.message(d);};
    window.onload = function() {c.stop();};
  </script>"""


def test_htmlfile_carries_frames_as_scripts(port: int, url: str) -> None:
    with Http(port) as connection:
        reply = connection.ask("GET", url + "/htmlfile?c=%63allback")
        assert reply.status == 200
        assert same_type(reply, "text/html;charset=UTF-8")
        assert reply["cache-control"] == NOT_CACHED
        head = reply.chunk().decode()
        assert head.strip() == HTML_HEAD
        assert len(head) > 1024
        assert reply.chunk() == b'<script>\np("o");\n</script>\r\n'
        send(port, url, "x")
        assert reply.chunk() == b'<script>\np("a[\\"x\\"]");\n</script>\r\n'
        send(port, url, "</script><script>alert(1)</script>")
        assert reply.chunk().count(b"<") == 2


def test_htmlfile_ends_at_the_response_limit(port: int, url: str) -> None:
    with Http(port) as connection:
        reply = connection.ask("GET", url + "/htmlfile?c=callback")
        reply.chunk()
        assert reply.chunk() == b'<script>\np("o");\n</script>\r\n'
        message = "x" * 4096
        send(port, url, message)
        assert reply.chunk() == f'<script>\np("a[\\"{message}\\"]");\n</script>\r\n'.encode()
        assert reply.chunk() == b""


@pytest.mark.parametrize("transport", ["htmlfile", "jsonp"])
@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", b'"callback" parameter required'),
        ("?c=", b'"callback" parameter required'),
        ("?c=" + quote("alert(1)//"), b'invalid "callback" parameter'),
        ("?c=" + "x" * 200, b'invalid "callback" parameter'),
    ],
)
def test_a_callback_must_be_there_and_be_a_name(port: int, transport: str, query: str, said: bytes) -> None:
    reply = fetch(port, "GET", f"/echo/a/{uuid.uuid4()}/{transport}{query}")
    assert reply.status == 500
    assert said in reply.body
    assert same_type(reply, "text/plain;charset=UTF-8")


# ── jsonp ─────────────────────────────────────────────────────────────────────────────────────────────


def test_jsonp_calls_back(port: int, url: str) -> None:
    reply = fetch(port, "GET", url + "/jsonp?c=%63allback")
    assert (reply.status, reply.body) == (200, b'callback("o");\r\n')
    assert same_type(reply, "application/javascript;charset=UTF-8")
    assert reply["cache-control"] == NOT_CACHED
    reply = fetch(port, "POST", url + "/jsonp_send", headers=FORM, body=b"d=%5B%22x%22%5D")
    assert (reply.status, reply.body) == (200, b"ok")
    assert same_type(reply, "text/plain;charset=UTF-8")
    assert reply["cache-control"] == NOT_CACHED
    assert fetch(port, "GET", url + "/jsonp?callback=other").body == b'other("a[\\"x\\"]");\r\n'


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"d=%5B%22x", b"Broken JSON encoding."),
        (b"", b"Payload expected."),
        (b"d=", b"Payload expected."),
        (b"p=p", b"Payload expected."),
    ],
)
def test_jsonp_send_says_what_is_wrong(port: int, url: str, body: bytes, said: bytes) -> None:
    assert fetch(port, "GET", url + "/jsonp?c=x").body == b'x("o");\r\n'
    reply = fetch(port, "POST", url + "/jsonp_send", headers=FORM, body=body)
    assert reply.status == 500
    assert said in reply.body
    assert fetch(port, "POST", url + "/jsonp_send", headers=FORM, body=b"d=%5B%22b%22%5D").body == b"ok"
    assert fetch(port, "GET", url + "/jsonp?c=x").body == b'x("a[\\"b\\"]");\r\n'


def test_jsonp_send_takes_a_form_or_json_alone(port: int, url: str) -> None:
    assert fetch(port, "GET", url + "/jsonp?c=x").body == b'x("o");\r\n'
    assert fetch(port, "POST", url + "/jsonp_send", headers=FORM, body=b"d=%5B%22abc%22%5D").body == b"ok"
    plain = {"Content-Type": "text/plain"}
    assert fetch(port, "POST", url + "/jsonp_send", headers=plain, body=b'["%61bc"]').body == b"ok"
    assert fetch(port, "GET", url + "/jsonp?c=x").body == b'x("a[\\"abc\\",\\"%61bc\\"]");\r\n'


def test_jsonp_a_closed_session_says_so_again_and_again(port: int) -> None:
    url = f"/close/000/{uuid.uuid4()}/jsonp?c=x"
    closed = b'x("c[3000,\\"Go away!\\"]");\r\n'
    assert [fetch(port, "GET", url).body for _ in range(3)] == [b'x("o");\r\n', closed, closed]


# ── the cookie ────────────────────────────────────────────────────────────────────────────────────────


def test_cookie_info_says_that_it_is_needed_and_sets_none(port: int) -> None:
    reply = fetch(port, "GET", "/cookie_needed_echo/info")
    assert json.loads(reply.body)["cookie_needed"] is True
    assert reply["set-cookie"] is None


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "xhr"),
        ("POST", "xhr_streaming"),
        ("GET", "eventsource"),
        ("GET", "htmlfile?c=%63allback"),
        ("GET", "jsonp?c=%63allback"),
        ("OPTIONS", "xhr"),
    ],
)
def test_cookie_a_dummy_is_set_and_the_clients_own_is_echoed(port: int, method: str, path: str) -> None:
    for cookie, value in (({}, "dummy"), ({"Cookie": "a=b; JSESSIONID=abcdef; c=d"}, "abcdef")):
        with Http(port) as connection:
            reply = connection.ask(method, f"/cookie_needed_echo/000/{uuid.uuid4()}/{path}", headers=cookie)
            parts = [part.strip() for part in (reply["set-cookie"] or "").split(";")]
            assert parts[0] == f"JSESSIONID={value}"
            assert parts[1].lower() == "path=/"


def test_cookie_sending_sets_it_too(port: int) -> None:
    url = f"/cookie_needed_echo/000/{uuid.uuid4()}"
    assert fetch(port, "GET", url + "/jsonp?c=x").body == b'x("o");\r\n'
    reply = fetch(port, "POST", url + "/jsonp_send", headers=FORM, body=b"d=%5B%22x%22%5D")
    assert (reply.body, reply["set-cookie"]) == (b"ok", "JSESSIONID=dummy; path=/")


# ── characters ────────────────────────────────────────────────────────────────────────────────────────

SERVER_ESCAPES = re.compile("[\x00-\x1f\u200c-\u200f\u2028-\u202f\u2060-\u206f\ufff0-\uffff]")
SURROGATES = range(0xD800, 0xE000)


def test_characters_that_browsers_break_are_escaped(port: int, url: str) -> None:
    risky = [code for code in range(255, 0x10000) if code not in SURROGATES and SERVER_ESCAPES.match(chr(code))]
    assert poll(port, url) == b"o\n"
    body = ('["' + "".join(map(chr, risky)) + '"]').encode()
    assert fetch(port, "POST", url + "/xhr_send", body=body).status == 204
    assert poll(port, url).decode() == 'a["' + "".join(f"\\u{code:04x}" for code in risky) + '"]\n'


def test_characters_that_clients_escape_come_back_as_they_were(port: int, url: str) -> None:
    every = [code for code in range(0x10000) if code not in SURROGATES]
    assert poll(port, url) == b"o\n"
    body = ('["' + "".join(f"\\u{code:04x}" for code in every) + '"]').encode()
    assert fetch(port, "POST", url + "/xhr_send", body=body).status == 204
    assert json.loads(poll(port, url)[1:]) == ["".join(map(chr, every))]


def test_characters_beyond_the_first_plane_and_halves_of_pairs(port: int, url: str) -> None:
    assert poll(port, url) == b"o\n"
    body = '["🚀", "\\ud83d\\ude80", "\\ud83d!"]'.encode()
    assert fetch(port, "POST", url + "/xhr_send", body=body).status == 204
    assert json.loads(poll(port, url)[1:]) == ["🚀", "🚀", "\ufffd!"]
