"""SockJS protocol 0.3.3: WebSocket and raw WebSocket."""

import json
import struct

import pytest
from tests.support.http import Http, fetch
from tests.support.raw import BINARY, TEXT, RawWebSocket

PATH = "/000/ws/websocket"


def test_a_normal_request_is_no_upgrade(port: int) -> None:
    reply = fetch(port, "GET", "/echo/0/0/websocket")
    assert reply.status == 400
    assert b'Can "Upgrade" only to "WebSocket".' in reply.body


@pytest.mark.parametrize("first", [True, False], ids=["first", "kept alive"])
def test_a_connection_that_is_not_upgraded_is_told_so(port: int, first: bool) -> None:
    with Http(port) as connection:
        if not first:
            connection.ask("GET", "/echo").load()
        headers = {"Upgrade": "WebSocket", "Connection": "close"}
        reply = connection.ask("GET", "/echo/0/0/websocket", headers=headers).load()
    assert reply.status == 400
    assert b'"Connection" must be "Upgrade".' in reply.body


@pytest.mark.parametrize("headers", [{"Upgrade": "WebSocket", "Connection": "Upgrade"}, {}])
@pytest.mark.parametrize("path", ["/0/0/websocket", "/websocket"])
def test_a_websocket_is_opened_with_get(own_port: int, path: str, headers: dict[str, str]) -> None:
    reply = fetch(own_port, "POST", "/echo" + path, headers=headers)
    assert (reply.status, reply.body, reply["content-type"], reply["allow"]) == (405, b"", None, "GET")


@pytest.mark.parametrize("version", ["7", "8", "13"])
@pytest.mark.parametrize("connection", ["Upgrade", "keep-alive, Upgrade"])
def test_the_handshake_of_the_rfc_and_of_its_last_drafts(own_port: int, version: str, connection: str) -> None:
    headers = {
        "Upgrade": "websocket",
        "Connection": connection,
        "Sec-WebSocket-Version": version,
        "Sec-WebSocket-Origin": "http://asd",
        "Sec-WebSocket-Key": "x3JJHMbDL1EzLkh9GBhXDw==",
    }
    with Http(own_port) as opened:
        reply = opened.ask("GET", "/echo" + PATH, headers=headers)
        assert reply.status == 101
        assert reply["sec-websocket-accept"] == "HSmrc0sMlYUkAGmm5OPpG2HaGWk="
        assert (reply["connection"] or "").lower() == "upgrade"
        assert (reply["upgrade"] or "").lower() == "websocket"
        assert reply["content-length"] is None


async def test_a_session_opens_sends_and_receives(port: int) -> None:
    client = await RawWebSocket.open(port, "/echo" + PATH)
    assert await client.recv() == b"o"
    await client.send("")
    await client.send('["a"]')
    assert await client.recv() == b'a["a"]'
    await client.send('"b"')
    assert await client.recv() == b'a["b"]'
    await client.send('["c","d"]')
    got = json.loads((await client.recv())[1:])
    if got == ["c"]:
        got += json.loads((await client.recv())[1:])
    assert got == ["c", "d"]
    await client.close()


async def test_a_session_that_is_closed_says_so_and_ends(port: int) -> None:
    client = await RawWebSocket.open(port, "/close" + PATH)
    assert await client.ended() == [b"o", b'c[3000,"Go away!"]']
    await client.close()


async def test_two_sessions_may_share_an_id(port: int) -> None:
    one, two = [await RawWebSocket.open(port, "/echo" + PATH) for _ in range(2)]
    assert [await one.recv(), await two.recv()] == [b"o", b"o"]
    await one.send('["a"]')
    await two.send('["b"]')
    assert [await one.recv(), await two.recv()] == [b'a["a"]', b'a["b"]']
    await one.close()
    three = await RawWebSocket.open(port, "/echo" + PATH)
    assert await three.recv() == b"o"
    await two.close()
    await three.close()


@pytest.mark.parametrize("broken", ['["a', "[1]", "{}", "x"])
async def test_broken_json_ends_the_connection(port: int, broken: str) -> None:
    client = await RawWebSocket.open(port, "/echo" + PATH)
    assert await client.recv() == b"o"
    await client.send(broken)
    assert await client.ended() == []
    await client.close()


async def test_raw_there_is_no_framing(port: int) -> None:
    client = await RawWebSocket.open(port, "/echo/websocket")
    await client.send("Hello world!\uffff")
    assert await client.next_frame() == (TEXT, "Hello world!\uffff".encode())
    await client.send(b"\xff\x00")
    assert await client.next_frame() == (BINARY, b"\xff\x00")
    await client.close()


async def test_raw_a_session_that_is_closed_just_ends(port: int) -> None:
    client = await RawWebSocket.open(port, "/close/websocket")
    opcode, payload = await client.next_frame()
    assert (opcode, struct.unpack("!H", payload[:2])[0]) == (8, 3000)
    await client.close()


@pytest.mark.parametrize("path", [PATH, "/websocket"])
def test_disabled_there_is_no_websocket(port: int, path: str) -> None:
    assert fetch(port, "GET", "/disabled_websocket_echo" + path).status == 404
    with Http(port) as connection:
        headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
        headers["Sec-WebSocket-Key"] = "x3JJHMbDL1EzLkh9GBhXDw=="
        assert connection.ask("GET", "/disabled_websocket_echo" + path, headers=headers).status == 404
