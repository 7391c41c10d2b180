"""SockJS protocol 0.3.3: greeting, iframe page, info, session URLs, wrong methods; HTTP/1.0 and 1.1."""

import json
import re

import pytest
from tests.support.http import Http, Reply, fetch

NOT_CACHED = "no-store, no-cache, must-revalidate, max-age=0"


def same_type(reply: Reply, expected: str) -> bool:
    return (reply["content-type"] or "").replace(" ", "") == expected


def cached_for_long(reply: Reply) -> bool:
    control = reply["cache-control"] or ""
    return "public" in control and re.search("max-age=[1-9][0-9]{6}", control) is not None and bool(reply["expires"])


def check_cors(reply: Reply, origin: str | None = None) -> None:
    named = origin not in (None, "null")
    assert reply["access-control-allow-origin"] == (origin if named else "*")
    assert reply["access-control-allow-credentials"] == "true"
    assert reply["vary"] == "Origin"


@pytest.mark.parametrize("path", ["/echo", "/echo/"])
def test_greeting_the_top_url_says_welcome(port: int, path: str) -> None:
    reply = fetch(port, "GET", path)
    assert (reply.status, reply.body) == (200, b"Welcome to SockJS!\n")
    assert same_type(reply, "text/plain;charset=UTF-8")
    assert reply["set-cookie"] is None


@pytest.mark.parametrize("suffix", ["/a", "/a.html", "//", "///", "/a/a", "/a/a/", "/a/", "/0/0/other", "/0/0/0/xhr"])
def test_greeting_other_simple_requests_are_not_found(port: int, suffix: str) -> None:
    assert fetch(port, "GET", "/echo" + suffix).status == 404


@pytest.mark.parametrize(
    "suffix",
    [
        "/iframe.html",
        "/iframe-a.html",
        "/iframe-.html",
        "/iframe-0.1.2.html",
        "/iframe-0.1.2abc-dirty.2144.html",
        "/iframe-a.html?t=1234",
        "/iframe-0.1.2abc-dirty.2144.html?t=qweqweq123",
    ],
)
def test_iframe_every_version_of_the_page_is_the_same_and_kept_for_long(port: int, suffix: str) -> None:
    reply = fetch(port, "GET", "/echo" + suffix)
    assert reply.status == 200
    assert same_type(reply, "text/html;charset=UTF-8")
    assert cached_for_long(reply)
    assert reply["etag"]
    assert reply["last-modified"] is None
    assert reply["set-cookie"] is None
    text = reply.body.decode()
    assert text.startswith("<!DOCTYPE html>\n<html>\n<head>\n")
    assert "_sockjs_onload = function(){SockJS.bootstrap_iframe();};" in text
    found = re.search('<script src="([^"]*)"></script>', text)
    assert found is not None
    assert found[1].startswith(("/", "http"))
    assert text.strip().endswith("</html>")


@pytest.mark.parametrize(
    "suffix",
    ["/iframe.htm", "/iframe", "/IFRAME.HTML", "/IFRAME", "/iframe.HTML", "/iframe.xml", "/iframe-/.html"],
)
def test_iframe_malformed_urls_are_not_found(port: int, suffix: str) -> None:
    assert fetch(port, "GET", "/echo" + suffix).status == 404


def test_iframe_a_page_that_the_client_has_is_not_sent_again(port: int) -> None:
    first, second = (fetch(port, "GET", "/echo/iframe.html") for _ in range(2))
    assert first["etag"] == second["etag"]
    again = fetch(port, "GET", "/echo/iframe.html", headers={"If-None-Match": first["etag"] or ""})
    assert (again.status, again.body, again["content-type"]) == (304, b"", None)


def test_info_tells_what_the_server_can(port: int) -> None:
    reply = fetch(port, "GET", "/echo/info")
    assert reply.status == 200
    assert same_type(reply, "application/json;charset=UTF-8")
    assert reply["set-cookie"] is None
    assert (reply["cache-control"], reply["expires"], reply["last-modified"]) == (NOT_CACHED, None, None)
    check_cors(reply)
    told = json.loads(reply.body)
    assert told["websocket"] is True
    assert told["cookie_needed"] is False
    assert told["origins"] == ["*:*"]
    assert 0 <= told["entropy"] < 2**32


def test_info_entropy_is_new_each_time(port: int) -> None:
    assert len({json.loads(fetch(port, "GET", "/echo/info").body)["entropy"] for _ in range(5)}) == 5


def test_info_says_where_websockets_are_disabled(port: int) -> None:
    assert json.loads(fetch(port, "GET", "/disabled_websocket_echo/info").body)["websocket"] is False


@pytest.mark.parametrize("origin", [None, "test", "null", "https://other.example"])
@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/info", "OPTIONS, GET"),
        ("/abc/abc/xhr", "OPTIONS, POST"),
        ("/abc/abc/xhr_send", "OPTIONS, POST"),
        ("/abc/abc/xhr_streaming", "OPTIONS, POST"),
    ],
)
def test_options_are_answered_for_long(port: int, path: str, methods: str, origin: str | None) -> None:
    reply = fetch(port, "OPTIONS", "/echo" + path, headers={} if origin is None else {"Origin": origin})
    assert (reply.status, reply.body) == (204, b"")
    assert cached_for_long(reply)
    assert int(reply["access-control-max-age"] or 0) > 1_000_000
    assert reply["access-control-allow-methods"] == methods
    check_cors(reply, origin)


@pytest.mark.parametrize("session", ["/a/a", "/_/_", "/1/1", "/abcdefgh_i-j%20/abcdefg_i-j%20"])
def test_session_urls_take_any_value(port: int, session: str) -> None:
    assert fetch(port, "POST", f"/echo{session}/xhr").body == b"o\n"


@pytest.mark.parametrize("session", ["//", "/a./a", "/a/a.", "/./.", "/", "///", "/%2e/a", "/a%2fb/c"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_session_urls_with_dots_or_empty_parts_are_not_found(port: int, session: str, method: str) -> None:
    assert fetch(port, method, f"/echo{session}/xhr").status == 404


@pytest.mark.parametrize(
    ("path", "wrong", "allowed"),
    [
        ("", "POST", {"GET"}),
        ("/iframe.html", "POST", {"GET"}),
        ("/info", "POST", {"OPTIONS", "GET"}),
        ("/websocket", "POST", {"GET"}),
        ("/0/0/websocket", "POST", {"GET"}),
        ("/0/0/xhr", "GET", {"OPTIONS", "POST"}),
        ("/0/0/xhr", "PUT", {"OPTIONS", "POST"}),
        ("/0/0/xhr_streaming", "GET", {"OPTIONS", "POST"}),
        ("/0/0/xhr_send", "GET", {"OPTIONS", "POST"}),
        ("/0/0/eventsource", "POST", {"GET"}),
        ("/0/0/htmlfile", "POST", {"GET"}),
        ("/0/0/jsonp", "POST", {"GET"}),
        ("/0/0/jsonp_send", "GET", {"POST"}),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(port: int, path: str, wrong: str, allowed: set[str]) -> None:
    reply = fetch(port, wrong, "/echo" + path)
    assert (reply.status, reply.body, reply["content-type"]) == (405, b"", None)
    assert set((reply["allow"] or "").split(", ")) == allowed


def test_http_1_0_a_whole_answer_has_a_length_or_ends_the_connection(port: int) -> None:
    with Http(port) as connection:
        reply = connection.ask("GET", "/echo", version="1.0", headers={"Connection": "Keep-Alive"})
        assert reply.status == 200
        assert reply["transfer-encoding"] is None
        assert reply["content-length"] == "19"
        assert reply.load().body == b"Welcome to SockJS!\n"
        if (reply["connection"] or "close") == "close":
            assert connection.rest() == b""
        else:
            assert connection.ask("GET", "/echo", version="1.0").status == 200


def test_http_1_0_a_stream_ends_with_the_connection(own_port: int) -> None:
    with Http(own_port) as connection:
        reply = connection.ask(
            "POST", "/close/000/http10/xhr_streaming", version="1.0", headers={"Connection": "Keep-Alive"}
        )
        assert reply.status == 200
        assert reply["transfer-encoding"] is None
        assert reply["content-length"] is None
        assert connection.rest() == b"h" * 2048 + b'\no\nc[3000,"Go away!"]\n'


def test_http_1_1_a_connection_serves_many_requests(port: int) -> None:
    with Http(port) as connection:
        for _ in range(3):
            reply = connection.ask("GET", "/echo", headers={"Connection": "Keep-Alive"}).load()
            assert (reply["connection"] or "keep-alive").lower() == "keep-alive"
            assert reply.body == b"Welcome to SockJS!\n"


def test_http_1_1_a_stream_comes_in_a_chunk_a_frame(port: int) -> None:
    with Http(port) as connection:
        reply = connection.ask("POST", "/close/000/http11/xhr_streaming")
        assert reply["content-length"] is None
        came = [reply.chunk() for _ in range(4)]
        assert came == [b"h" * 2048 + b"\n", b"o\n", b'c[3000,"Go away!"]\n', b""]
        assert connection.ask("GET", "/echo").status == 200
