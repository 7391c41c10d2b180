"""Whole conversations in each version of STOMP, with and without sub-protocols."""

import json
from collections.abc import Mapping

import pytest
import websockets
from tests.conftest import ONE_NODE
from tests.support.client import StompClient, WebSocketPipe
from tests.support.deadline import DEADLINE
from tests.support.frames import Frame, decode, encode
from tests.support.raw import RawWebSocket
from tests.support.server import Server

pytestmark = pytest.mark.e2e

INBOX = "/user/queue/inbox"
VERSIONS = ("1.0", "1.1", "1.2")
NOTE = "a:b\\c\nd"
ON_THE_WIRE = {"1.0": b"\nnote:a:b\\c d\n", "1.1": b"\nnote:a\\cb\\\\c\\nd\n", "1.2": b"\nnote:a\\cb\\\\c\\nd\n"}


@pytest.fixture(scope="module")
def arrangement() -> str:
    """The wire is the same with several nodes."""
    return ONE_NODE


class Old:
    """A client that speaks one version, and reads frames as bytes."""

    def __init__(self, pipe: RawWebSocket, version: str) -> None:
        self.pipe = pipe
        self.version = version

    async def say(self, command: str, headers: Mapping[str, str], body: bytes = b"") -> None:
        await self.pipe.send(encode(command, headers, body))

    async def raw(self, command: str) -> bytes:
        """The next frame that is no heart-beat."""
        while not (data := (await self.pipe.recv()).lstrip(b"\n")):
            pass
        assert data.startswith(command.encode() + b"\n"), data
        return data

    async def next(self, command: str) -> Frame:
        return decode(await self.raw(command))[0]

    async def subscribe(self, ack: str) -> None:
        named = {} if self.version == "1.0" else {"id": "s"}
        await self.say("SUBSCRIBE", {"destination": INBOX, "ack": ack, "receipt": "in force", **named})
        assert (await self.next("RECEIPT")).headers["receipt-id"] == "in force"

    async def acknowledge(self, message: Frame, command: str = "ACK") -> None:
        headers = {
            "1.0": {"message-id": message.headers["message-id"]},
            "1.1": {"message-id": message.headers["message-id"], "subscription": "s"},
            "1.2": {"id": message.headers.get("ack", "")},
        }[self.version]
        await self.say(command, {**headers, "receipt": command})
        assert (await self.next("RECEIPT")).headers["receipt-id"] == command

    async def goodbye(self) -> None:
        await self.say("DISCONNECT", {"receipt": "bye"})
        assert (await self.next("RECEIPT")).headers["receipt-id"] == "bye"
        assert await self.pipe.ended() == []
        await self.pipe.close()


async def connect(server: Server, login: str, version: str, *, offered: str = "") -> Old:
    pipe = await RawWebSocket.open(server.port, headers={"Sec-WebSocket-Protocol": offered} if offered else {})
    client = Old(pipe, version)
    accepted = {} if version == "1.0" else {"accept-version": version, "host": "x", "heart-beat": "0,0"}
    await client.say("CONNECT", {"login": login, **accepted})
    connected = await client.next("CONNECTED")
    assert connected.headers["version"] == version
    assert connected.headers["user-name"] == login
    assert ("heart-beat" in connected.headers) == (version != "1.0")
    return client


@pytest.mark.parametrize("offered", ["", "own", "v10.stomp, v11.stomp, v12.stomp"])
@pytest.mark.parametrize("version", VERSIONS)
async def test_a_conversation(shared_server: Server, version: str, offered: str) -> None:
    user = f"v-{version}-{len(offered)}"
    mine = f"v{version.replace('.', '')}.stomp" if offered == "own" else offered
    async with await StompClient.connect(shared_server, "sender") as sender:
        client = await connect(shared_server, user, version, offered=mine)
        await client.subscribe("client")
        await sender.send(f"/user/{user}/queue/inbox", "first", headers={"note": NOTE})
        data = await client.raw("MESSAGE")
        assert ON_THE_WIRE[version] in data
        message = decode(data)[0]
        assert (message.text, message.headers["destination"]) == ("first", INBOX)
        assert message.headers.get("subscription") == (None if version == "1.0" else "s")
        assert ("ack" in message.headers) == (version == "1.2")
        await client.acknowledge(message)
        await sender.send(f"/user/{user}/queue/inbox", "second")
        assert (await client.next("MESSAGE")).text == "second"
        await client.goodbye()
        again = await connect(shared_server, user, version, offered=mine)
        await again.subscribe("client")
        message = await again.next("MESSAGE")
        assert (message.text, message.headers["redelivered"]) == ("second", "true")
        await again.acknowledge(message)
        await again.goodbye()


@pytest.mark.parametrize("version", ["1.1", "1.2"])
async def test_what_is_refused_comes_again(shared_server: Server, version: str) -> None:
    async with await StompClient.connect(shared_server, "sender") as sender:
        client = await connect(shared_server, f"n-{version}", version)
        await client.subscribe("client-individual")
        await sender.send(f"/user/n-{version}/queue/inbox", "not now")
        message = await client.next("MESSAGE")
        await client.acknowledge(message, "NACK")
        again = await client.next("MESSAGE")
        assert (again.headers["message-id"], again.headers["redelivered"]) == (message.headers["message-id"], "true")
        await client.acknowledge(again)
        await client.goodbye()


async def test_stomp_1_0_has_no_nack(shared_server: Server) -> None:
    client = await connect(shared_server, "n-1.0", "1.0")
    await client.say("NACK", {"message-id": "1-1"})
    assert "NACK" in (await client.next("ERROR")).headers["message"]
    await client.pipe.ended()
    await client.pipe.close()


@pytest.mark.parametrize("version", VERSIONS)
async def test_nothing_comes_to_a_subscription_that_was_ended(shared_server: Server, version: str) -> None:
    client = await connect(shared_server, f"u-{version}", version)
    topic = f"/topic/u-{version}"
    named = {"destination": topic} if version == "1.0" else {"id": "s"}
    await client.say("SUBSCRIBE", {"destination": topic, **named})
    await client.say("SEND", {"destination": topic}, b"heard")
    assert (await client.next("MESSAGE")).text == "heard"
    await client.say("UNSUBSCRIBE", named)
    await client.say("SEND", {"destination": topic, "receipt": "sent"}, b"not heard")
    await client.next("RECEIPT")
    await client.goodbye()


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["v12.stomp", "v11.stomp", "v10.stomp"], "v12.stomp"),
        (["v10.stomp"], "v10.stomp"),
        (["mqtt", "v11.stomp"], "v11.stomp"),
    ],
)
async def test_a_sub_protocol_is_chosen(shared_server: Server, offered: list[str], chosen: str) -> None:
    connection = await websockets.connect(
        shared_server.url,
        subprotocols=[websockets.Subprotocol(name) for name in offered],
        max_queue=None,
        close_timeout=DEADLINE,
    )
    async with await StompClient(WebSocketPipe(connection)).introduced("sub-protocol") as client:
        assert connection.subprotocol == chosen
        await client.barrier()


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_frame_but_connect_may_ask_for_a_receipt(shared_server: Server, version: str) -> None:
    pipe = await RawWebSocket.open(shared_server.port)
    client = Old(pipe, version)
    await client.say("CONNECT", {"login": f"r-{version}", "accept-version": version, "host": "x", "receipt": "none"})
    assert "receipt-id" not in (await client.next("CONNECTED")).headers
    names = {"id": "s", "destination": INBOX, "transaction": "t", "message-id": "1-1", "subscription": "s"}
    wanted = ["SUBSCRIBE", "BEGIN", "SEND", "ACK", *(["NACK"] if version != "1.0" else []), "COMMIT", "BEGIN", "ABORT"]
    for number, command in enumerate([*wanted, "UNSUBSCRIBE"]):
        ours = {name: value for name, value in names.items() if not (command == "SEND" and name == "transaction")}
        await client.say(command, {**ours, "receipt": f"{command} {number}"})
        while not (frame := decode(await pipe.recv())) or frame[0].command == "MESSAGE":
            pass
        assert frame[0].command == "RECEIPT", frame
        assert frame[0].headers["receipt-id"] == f"{command} {number}"
    await client.goodbye()


async def test_a_version_that_is_not_spoken_is_answered_with_those_that_are(shared_server: Server) -> None:
    pipe = await RawWebSocket.open(shared_server.port)
    await pipe.send(encode("CONNECT", {"accept-version": "2.0", "host": "x"}))
    (data,) = await pipe.ended()
    error = decode(data)[0]
    assert (error.command, error.headers["version"]) == ("ERROR", "1.0,1.1,1.2")
    await pipe.close()


@pytest.mark.parametrize("body", [b"", b"\0", bytes(range(256)), "Grüße, 世界".encode(), b"x" * 200_000])
async def test_a_body_may_be_anything(shared_server: Server, body: bytes) -> None:
    async with await StompClient.connect(shared_server, "body") as client:
        await client.subscribe("/topic/body")
        await client.send("/topic/body", body, headers={"content-type": "application/x-any", "custom": "kept"})
        message = await client.message()
        assert message.body == body
        assert message.headers["content-length"] == str(len(body))
        assert (message.headers["content-type"], message.headers["custom"]) == ("application/x-any", "kept")


async def test_over_sockjs_a_binary_body_keeps_its_length(shared_server: Server) -> None:
    url = shared_server.url.replace("/ws", "/chat-websocket/000/binary/websocket")
    async with (
        await StompClient.connect(shared_server, "binary") as sender,
        websockets.connect(url, close_timeout=DEADLINE) as pipe,
    ):
        assert await pipe.recv() == "o"

        async def say(command: str, **headers: str) -> Frame:
            await pipe.send(json.dumps([encode(command, headers).decode()]))
            return await heard()

        async def heard() -> Frame:
            (text,) = json.loads(str(await pipe.recv())[1:])
            return decode(text.encode())[0]

        await say("CONNECT", login="sockjs", **{"accept-version": "1.2", "host": "x"})
        await say("SUBSCRIBE", id="s", destination="/topic/binary", receipt="r")
        await sender.send("/topic/binary", b"\xff\xfe and text")
        message = await heard()
        assert (message.body, message.headers["content-length"]) == (b"?? and text", "11")
