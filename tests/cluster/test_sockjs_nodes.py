"""SockJS's HTTP transports over three nodes, without sticky sessions: any node answers for any session."""

import asyncio
import json
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.support.cluster import Nodes
from tests.support.deadline import DEADLINE
from tests.support.fallback import Fallback
from tests.support.http import Http, fetch
from tests.support.valkey import Valkey

QUICK = """
[cluster]
lease-seconds = 2
renew-seconds = 0.4
heartbeat-seconds = 0.3
[delivery]
confirm-seconds = 0
[sockjs]
prove-seconds = 0.5
heartbeat-seconds = 2
jsonp = true
iframe = true
"""
INBOX = "/user/queue/inbox"
INTERRUPTED = b'c[1002,"Connection interrupted"]\n'


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey) -> Iterator[Nodes]:
    """Three nodes that no test here hurts."""
    nodes = Nodes(tmp_path_factory.mktemp("three"), f"{valkey.url}?prefix=sockjs", count=3, config=QUICK)
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.close()


@pytest.fixture
def url() -> str:
    """A session nobody has used."""
    return f"/chat-websocket/000/{uuid.uuid4().hex}"


def connect(login: str) -> bytes:
    return json.dumps([f"CONNECT\naccept-version:1.2\nlogin:{login}\nheart-beat:0,0\n\n\0"]).encode()


@pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "polling"])
def test_a_session_works_through_a_round_robin(three: Nodes, streaming: bool) -> None:
    user = f"robin-{streaming}"
    with Fallback(three.port, streaming=streaming) as client, Fallback(three.port) as sender:
        client.open(user)
        client.subscribe(INBOX)
        sender.open("sender")
        bodies = [f"{n}" for n in range(40)]
        for body in bodies:
            sender.say("SEND", {"destination": f"/user/{user}/queue/inbox"}, body.encode())
        assert [client.frame().text for _ in bodies] == bodies
        big = b"x" * 200_000
        sender.say("SEND", {"destination": f"/user/{user}/queue/inbox"}, big)
        assert client.frame().body == big


def test_each_node_answers_for_the_session_of_another(three: Nodes, url: str) -> None:
    one, two, other = (node.port for node in three.nodes)
    assert fetch(one, "POST", url + "/xhr").body == b"o\n"
    assert fetch(two, "POST", url + "/xhr_send", body=connect("each")).status == 204
    assert b"CONNECTED" in fetch(other, "POST", url + "/xhr").body
    reply = fetch(other, "POST", url + "/xhr_send", body=b'["x')
    assert (reply.status, reply.body) == (500, b"Broken JSON encoding.")


@pytest.mark.parametrize(
    ("method", "path", "opened"),
    [
        ("POST", "xhr_streaming", b"h" * 2048 + b"\no\n"),
        ("GET", "eventsource", b"\r\ndata: o\r\n\r\n"),
        ("GET", "htmlfile?c=f", b'<script>\np("o");\n</script>\r\n'),
    ],
)
def test_a_stream_may_come_from_another_node(three: Nodes, url: str, method: str, path: str, opened: bytes) -> None:
    one, two, other = (node.port for node in three.nodes)
    with Http(one) as first:
        reply = first.ask(method, f"{url}/{path}")
        assert (reply.chunk() + reply.chunk()).endswith(opened)
        with Http(two) as second:
            twice = second.ask(method, f"{url}/{path}")
            came = b""
            while part := twice.chunk():
                came += part
            assert b"Another connection still open" in came
        first.close()
    with Http(other) as third:
        reply = third.ask(method, f"{url}/{path}")
        came = b""
        while part := reply.chunk():
            came += part
        assert b"Connection interrupted" in came


def test_jsonp_through_every_node(three: Nodes, url: str) -> None:
    one, two, other = (node.port for node in three.nodes)
    assert fetch(one, "GET", url + "/jsonp?c=f").body == b'f("o");\r\n'
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    body = b"d=" + b"%5B%22%5Cn%22%5D"
    assert fetch(two, "POST", url + "/jsonp_send", headers=form, body=body).body == b"ok"
    assert fetch(other, "POST", url + "/xhr_send", body=connect("jsonp")).status == 204
    assert b"CONNECTED" in fetch(two, "GET", url + "/jsonp?c=f").body


def test_a_client_that_leaves_one_node_interrupts_its_session_on_another(three: Nodes, url: str) -> None:
    one, two, other = (node.port for node in three.nodes)
    assert fetch(one, "POST", url + "/xhr").body == b"o\n"
    with Http(two) as waiting:
        waiting.send("POST", url + "/xhr")
        # What comes to the same node later is asked of the session's home later; that it has come shows an answer.
        assert fetch(two, "GET", "/chat-websocket/info").status == 200
        assert b"still open" in fetch(two, "POST", url + "/xhr").body
    assert fetch(two, "POST", url + "/xhr").body == INTERRUPTED
    assert fetch(other, "POST", url + "/xhr").body == INTERRUPTED


def test_a_session_that_no_node_knows(three: Nodes, url: str) -> None:
    for node in three.nodes:
        assert fetch(node.port, "POST", url + "/xhr_send", body=b'["x"]').status == 404
    assert fetch(three.nodes[1].port, "POST", url + "/xhr").body == b"o\n"
    assert fetch(three.nodes[2].port, "POST", url + "/xhr_send", body=b"[]").status == 204


def test_a_session_is_another_users_on_every_node(three: Nodes, url: str) -> None:
    one, two, _ = (node.port for node in three.nodes)
    assert fetch(one, "POST", url + "/xhr").body == b"o\n"
    foreign = {"Origin": "https://evil.example"}
    assert fetch(two, "POST", url + "/xhr_send", headers=foreign, body=b"[]").status == 403


def test_two_nodes_never_open_one_session(three: Nodes) -> None:
    """Whoever did not open it waits for its own turn, or is told that another request is open, or to connect anew."""
    urls = [f"/chat-websocket/000/{uuid.uuid4().hex}/xhr" for _ in range(12)]
    with ThreadPoolExecutor(3 * len(urls)) as pool:
        asked = [(url, pool.submit(fetch, node.port, "POST", url)) for url in urls for node in three.nodes]
        opened = [url for url, reply in asked if reply.result().body == b"o\n"]
    assert len(set(opened)) == len(opened)


@pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "polling"])
async def test_only_the_next_request_proves_whichever_node_it_comes_to(three: Nodes, streaming: bool) -> None:
    user, ports = f"proof-{streaming}", [node.port for node in three.nodes]
    with Fallback(ports[2]) as sender:
        sender.open(f"sender-{streaming}")
        with Fallback(ports[0], streaming=False) as client:
            client.open(user)
            client.subscribe(INBOX)
            client.hop(ports[1], streaming=streaming)
            sender.say("SEND", {"destination": f"/user/{user}/queue/inbox"}, b"once")
            assert client.frame().text == "once"
            if streaming:
                client.until_response_ends()
        with Fallback(ports[1], streaming=False) as client:
            client.open(user)
            client.hop(ports[0], streaming=streaming)
            client.subscribe(INBOX)
            again = client.frame()
            assert (again.text, again.headers.get("redelivered")) == ("once", "true")
            if streaming:
                client.until_response_ends()
            before = three.metrics()["confirmed"]
            client.hop(ports[2], streaming=False)
            sender.say("SEND", {"destination": f"/user/{user}/queue/inbox"}, b"twice")
            assert client.frame().text == "twice"
            await three.reaches("confirmed", before + 1)


@pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "polling"])
async def test_the_death_of_its_node_closes_a_session(
    make_nodes: Callable[..., Nodes], fresh_url: str, streaming: bool
) -> None:
    nodes = make_nodes(fresh_url, count=3, config=QUICK)
    home, front, _ = nodes.nodes
    with Fallback(home.port, streaming=False) as client:
        client.open("orphan")
        client.subscribe(INBOX)
        client.hop(front.port, streaming=streaming)
        client.ask()
        # The node answers this one only once it has the one before, which was on its way to the same home.
        assert fetch(front.port, "GET", "/chat-websocket/info").status == 200
        assert b"still open" in fetch(front.port, "POST", client.url + "/xhr").body
        home.kill()
        async with asyncio.timeout(2 * DEADLINE):
            while client.closed is None:
                await asyncio.to_thread(client.turn)
        assert client.closed == (1002, "Connection interrupted")
    with Fallback(front.port, streaming=streaming) as client:
        client.open("orphan")
        client.subscribe(INBOX)
