"""What guards a SockJS service over HTTP: origins, owners of sessions, transports that are off, limits of memory."""

import json
import uuid
from collections.abc import Iterator

import pytest
from tests.support.fallback import Fallback
from tests.support.http import Http, fetch
from tests.support.server import Server

from postroom.auth.cookie import CookieAuthenticator
from postroom.identity import UserName

SECRET = "a secret of the tests, long enough for anybody"
PAGE = "https://app.example"
CONFIG = f"""
origins = ["{PAGE}"]
[limits]
max-message-bytes = 65536
write-buffer-bytes = 262144
[sockjs]
disconnect-seconds = 1
prove-seconds = 0.3
response-bytes = "64MiB"
[auth.cookie]
secret = "{SECRET}"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A node that lets the pages of one other origin in."""
    server = Server(tmp_path_factory.mktemp("node"), config=CONFIG)
    server.start()
    yield server
    server.close()


@pytest.fixture
def url() -> str:
    """A session nobody has used."""
    return f"/chat-websocket/000/{uuid.uuid4().hex}"


def cookie(name: str) -> dict[str, str]:
    return {"Cookie": f"postroom={CookieAuthenticator(SECRET).issue(UserName(name))}", "Origin": PAGE}


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://app.example.evil.example", "x"])
@pytest.mark.parametrize(("method", "kind"), [("POST", "xhr"), ("POST", "xhr_streaming"), ("GET", "eventsource")])
def test_a_foreign_page_gets_nothing(server: Server, url: str, origin: str, method: str, kind: str) -> None:
    reply = fetch(server.port, method, f"{url}/{kind}", headers={"Origin": origin})
    assert reply.status == 403
    assert reply["access-control-allow-origin"] is None
    assert reply["vary"] == "Origin"
    asked = fetch(server.port, "OPTIONS", url + "/xhr", headers={"Origin": origin})
    assert asked["access-control-allow-origin"] is None
    assert fetch(server.port, "GET", "/chat-websocket/info")["access-control-allow-origin"] is None


def test_a_foreign_page_cannot_send_into_a_session(server: Server, url: str) -> None:
    assert fetch(server.port, "POST", url + "/xhr").body == b"o\n"
    reply = fetch(server.port, "POST", url + "/xhr_send", headers={"Origin": "https://evil.example"}, body=b'["x"]')
    assert reply.status == 403


def test_an_allowed_page_may_read_with_its_cookies(server: Server, url: str) -> None:
    for reply in (
        fetch(server.port, "GET", "/chat-websocket/info", headers={"Origin": PAGE}),
        fetch(server.port, "POST", url + "/xhr", headers={"Origin": PAGE}),
        fetch(server.port, "OPTIONS", url + "/xhr", headers={"Origin": PAGE}),
    ):
        assert reply["access-control-allow-origin"] == PAGE
        assert reply["access-control-allow-credentials"] == "true"
        assert reply["x-content-type-options"] == "nosniff"


def test_a_session_belongs_to_the_origin_that_opened_it(server: Server, url: str) -> None:
    assert fetch(server.port, "POST", url + "/xhr", headers={"Origin": PAGE}).body == b"o\n"
    for kind, body in (("xhr", b""), ("xhr_send", b'["x"]')):
        assert fetch(server.port, "POST", f"{url}/{kind}", body=body).status == 403
    assert fetch(server.port, "POST", url + "/xhr_send", headers={"Origin": PAGE}, body=b"[]").status == 204


def test_a_session_belongs_to_the_user_who_opened_it(server: Server, url: str) -> None:
    assert fetch(server.port, "POST", url + "/xhr", headers=cookie("anna")).body == b"o\n"
    for others in (cookie("ben"), {"Origin": PAGE}):
        assert fetch(server.port, "POST", url + "/xhr_send", headers=others, body=b'["x"]').status == 403
        assert fetch(server.port, "POST", url + "/xhr", headers=others).status == 403
    assert fetch(server.port, "POST", url + "/xhr_send", headers=cookie("anna"), body=b"[]").status == 204


def test_who_opened_the_session_is_who_connects(server: Server) -> None:
    with Fallback(server.port, headers=cookie("anna")) as client:
        client.turn()
        client.say("CONNECT", {"accept-version": "1.2"})
        connected = client.frame()
        assert (connected.command, connected.headers["user-name"]) == ("CONNECTED", "anna")


def test_a_page_of_the_servers_own_origin_need_not_say_so(server: Server, url: str) -> None:
    """Browsers send an Origin with a POST within their origin, and none with a GET."""
    own = {"Sec-Fetch-Site": "same-origin", "Cookie": cookie("anna")["Cookie"]}
    with Http(server.port) as connection:
        reply = connection.ask("GET", url + "/eventsource", headers=own)
        assert [reply.chunk(), reply.chunk()] == [b"\r\n", b"data: o\r\n\r\n"]
        body = json.dumps(["CONNECT\naccept-version:1.2\n\n\0"]).encode()
        named = {**own, "Origin": f"http://127.0.0.1:{server.port}"}
        assert fetch(server.port, "POST", url + "/xhr_send", headers=named, body=body).status == 204
        assert b"user-name:anna" in reply.chunk()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/0/abc/jsonp?c=x"),
        ("POST", "/0/abc/jsonp_send"),
        ("GET", "/0/abc/htmlfile?c=x"),
        ("GET", "/iframe.html"),
    ],
)
def test_transports_that_origins_do_not_guard_are_off(server: Server, method: str, path: str) -> None:
    assert fetch(server.port, method, "/chat-websocket" + path).status == 404


def test_a_script_of_a_foreign_page_gets_nothing(make_own: Server, url: str) -> None:
    """A page may load scripts from anywhere, and its browser sends no Origin header then."""
    ask = url + "/jsonp?c=x"
    for headers, status in (
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Referer": "https://evil.example/page"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Referer": f"{PAGE}/page"}, 200),
    ):
        assert fetch(make_own.port, "GET", ask, headers=headers).status == status
    frame = fetch(make_own.port, "GET", "/chat-websocket/iframe.html")
    assert frame["content-security-policy"] == f"frame-ancestors 'self' {PAGE}"


@pytest.fixture(scope="module")
def make_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A node with the old transports."""
    config = f'origins = ["{PAGE}"]\n[sockjs]\njsonp = true\niframe = true\n'
    server = Server(tmp_path_factory.mktemp("old"), config=config)
    server.start()
    yield server
    server.close()


def test_a_body_over_the_limit_is_refused(server: Server, url: str) -> None:
    assert fetch(server.port, "POST", url + "/xhr").body == b"o\n"
    reply = fetch(server.port, "POST", url + "/xhr_send", body=b'["' + b"x" * 1_000_000 + b'"]')
    assert reply.status == 413
    assert reply.body == b"a request's body has at most 786432 bytes"


async def test_a_client_that_asks_no_more_is_gone_after_the_disconnect_delay(server: Server) -> None:
    await server.reaches("connections", 0)
    with Fallback(server.port, streaming=False) as client:
        client.open("silent")
        assert server.metrics()["connections"] == 1


async def test_a_client_that_does_not_read_its_stream_is_cut(server: Server) -> None:
    with Fallback(server.port) as sender, Fallback(server.port) as deaf:
        sender.open("sender")
        deaf.open("deaf")
        deaf.subscribe("/topic/roar")
        before = server.metrics()["slow_consumers_cut"]
        for number in range(400):
            sender.say("SEND", {"destination": "/topic/roar"}, b"x" * 60_000)
            if number % 20 == 0 and server.metrics()["slow_consumers_cut"] > before:
                break
        await server.reaches("slow_consumers_cut", before + 1)
        with pytest.raises((ConnectionError, AssertionError, ValueError)):  # the stream breaks off, its end missing
            deaf.until_response_ends()
    await server.reaches("connections", 0)


async def test_a_client_that_does_not_fetch_is_cut(server: Server) -> None:
    with Fallback(server.port) as sender, Fallback(server.port, streaming=False) as lazy:
        sender.open("sender")
        lazy.open("lazy")
        lazy.subscribe("/topic/flood")
        before = server.metrics()["slow_consumers_cut"]
        for _ in range(6):
            sender.say("SEND", {"destination": "/topic/flood"}, b"x" * 60_000)
        sender.say("SEND", {"destination": "/topic/flood", "receipt": "sent"}, b"last")
        assert sender.frame().command == "RECEIPT"
        await server.reaches("slow_consumers_cut", before + 1)
        lazy.turn()
        assert lazy.closed == (1002, "Connection interrupted")
