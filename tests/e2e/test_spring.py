"""What clients written for Spring's broker expect of handlers and of users' destinations."""

import json

import pytest
from tests.support.client import StompClient
from tests.support.frames import Frame
from tests.support.server import Server

pytestmark = pytest.mark.e2e


async def connect(server: Server, login: str) -> StompClient:
    return await StompClient.connect(server, login, headers={"heart-beat": "10000,10000"})


async def test_connected_says_who_and_which_session_and_how_often(spring: Server) -> None:
    async with await connect(spring, "s-anna") as anna, await connect(spring, "s-anna") as tab:
        headers = anna.connected.headers
        assert (headers["user-name"], headers["version"], headers["heart-beat"]) == ("s-anna", "1.2", "10000,10000")
        assert headers["session"] != tab.connected.headers["session"]


@pytest.mark.parametrize("prefix", ["/app", "/message"])
async def test_a_handler_sends_to_a_topic(spring: Server, prefix: str) -> None:
    async with await connect(spring, "s-topic") as anna:
        await anna.subscribe("/topic/greetings")
        await anna.send(f"{prefix}/hello", "Anna")
        message = await anna.message()
        assert json.loads(message.body) == {"content": "Hello, Anna!"}
        assert message.headers["destination"] == "/topic/greetings"
        assert (message.headers["content-type"], message.headers["x"]) == ("application/json", "y")
        assert "sender" not in message.headers


async def test_a_reply_reaches_the_asking_session_alone(spring: Server) -> None:
    async with (
        await connect(spring, "s-reply") as asking,
        await connect(spring, "s-reply") as tab,
        await connect(spring, "s-reply") as same_node,
    ):
        for client in (asking, tab, same_node):
            await client.subscribe("/user/queue/reply")
        await asking.send("/app/ask", "?")
        message = await asking.message()
        assert message.text == f"only {asking.connected.headers['session']}"
        assert message.headers["destination"] == "/user/queue/reply"
        assert message.headers["kept"] == "yes"
        assert "offset" not in message.headers, "what the server sets is its own to set"
        await asking.send("/app/tell-all", "!")
        for client in (asking, tab, same_node):
            assert (await client.message()).text == "every tab"
            assert client.waiting() == []


async def test_a_reply_is_not_stored(spring: Server) -> None:
    async with await connect(spring, "s-gone") as asking:
        await asking.send("/app/ask", "nobody listens here")
        await asking.subscribe("/user/queue/reply")
        await asking.send("/app/tell-all", "!")
        assert (await asking.message()).text == "every tab"


async def test_a_reply_needs_no_acknowledgement(spring: Server) -> None:
    async with await connect(spring, "s-ack") as asking:
        await asking.subscribe("/user/queue/reply", ack="client-individual")
        await asking.send("/app/ask", "?")
        await asking.ack(await asking.message())
        await asking.send("/app/tell-all", "!")
        await asking.ack(await asking.message())
    async with await connect(spring, "s-ack") as again:
        await again.subscribe("/user/queue/reply", ack="client-individual")
        await again.send("/app/tell-all", "!")
        assert "redelivered" not in (await again.message()).headers


async def test_a_handler_sends_to_a_user_who_is_away(spring: Server) -> None:
    async with await connect(spring, "s-from") as anna:
        await anna.send("/app/forward/s-away", "kept")
        async with await connect(spring, "s-away") as ben:
            await ben.subscribe("/user/queue/reply")
            assert (await ben.message()).text == "kept"


async def test_a_subscription_to_a_handler_gets_one_answer(spring: Server) -> None:
    async with await connect(spring, "s-once") as anna:
        await anna.subscribe("/app/quotes/ACME", id="q")
        answer = await anna.message("q")
        assert json.loads(answer.body) == {"stock": "ACME", "price": 12.5}
        assert answer.headers["destination"] == "/app/quotes/ACME"
        assert answer.headers["content-type"] == "application/json"
        await anna.command("UNSUBSCRIBE", {"id": "q"})
        await anna.subscribe("/message/text", id="q")
        answer = await anna.message("q")
        assert (answer.text, answer.headers["destination"]) == ("for s-once", "/message/text")
        assert answer.headers["content-type"] == "text/plain;charset=UTF-8"


async def test_the_answer_comes_before_the_receipt(spring: Server) -> None:
    async with await connect(spring, "s-before") as anna:
        await anna.subscribe("/app/quotes/ACME", id="a", receipt=False)
        await anna.command("SUBSCRIBE", {"id": "b", "destination": "/app/quotes/ACME"})
        assert [frame.headers["subscription"] for frame in anna.inbox] == ["a", "b"]


async def test_a_handler_may_have_no_answer(spring: Server) -> None:
    async with await connect(spring, "s-none") as anna:
        await anna.subscribe("/app/nothing", id="n")
        await anna.barrier()
        assert [*anna.inbox] == []


async def refusal(client: StompClient) -> Frame:
    return await client.message("errors")


@pytest.mark.parametrize(
    ("destination", "code", "said"),
    [
        ("/app/fail/refused", "not-allowed", "not on a Sunday"),
        ("/app/fail/raised", "refused", "the application failed to handle this message"),
        ("/app/send-nowhere", "unknown-destination", "/app/hello is served by handlers: call them"),
        ("/app/forward/boss", "not-allowed", "you may not send to /app/forward/boss"),
        ("/message/forward/boss", "not-allowed", "you may not send to /message/forward/boss"),
    ],
)
async def test_an_error_of_a_handler_is_told_and_the_session_goes_on(
    spring: Server, destination: str, code: str, said: str
) -> None:
    async with await connect(spring, "s-error") as anna:
        await anna.subscribe("/user/queue/errors", id="errors")
        await anna.send(destination, "x", headers={"receipt": "never"}, receipt=False)
        told = await refusal(anna)
        assert (told.headers["code"], told.headers["message"]) == (code, said)
        assert told.headers["receipt-id"] == "never"
        await anna.barrier()
        assert [*anna.inbox] == []


@pytest.mark.parametrize("how", ["refused", "raised", "json"])
async def test_a_subscription_that_fails_may_be_asked_for_again(spring: Server, how: str) -> None:
    async with await connect(spring, "s-again") as anna:
        await anna.subscribe("/user/queue/errors", id="errors")
        for destination in (f"/app/fail/{how}", "/app/quotes/SECRET", "/app/unknown"):
            await anna.subscribe(destination, id="q", receipt=False)
            assert (await refusal(anna)).headers["code"] in ("not-allowed", "refused", "unknown-destination")
        await anna.subscribe("/app/text", id="q")
        assert (await anna.message("q")).text == "for s-again"


async def test_frames_wait_for_a_handler(spring: Server) -> None:
    async with await connect(spring, "s-order") as anna:
        await anna.subscribe("/topic/greetings")
        await anna.send("/app/wait", "", receipt=False)
        await anna.send("/topic/greetings", "behind it")
        assert [message.text for message in await anna.messages(2)] == ["after a while", "behind it"]


async def test_patterns_in_subscriptions(spring: Server) -> None:
    async with await connect(spring, "s-pattern") as anna:
        for number, pattern in enumerate(
            ("/topic/price.stock.*", "/topic/price.*.IBM", "/topic/**/s-deep", "/queue/{x}")
        ):
            await anna.subscribe(pattern, id=str(number))
        await anna.send("/topic/price.stock.IBM", "1")
        for subscription in ("0", "1"):
            message = await anna.message(subscription)
            assert message.headers["destination"] == "/topic/price.stock.IBM"
        await anna.send("/topic/a/b/s-deep", "2")
        assert (await anna.message("2")).headers["destination"] == "/topic/a/b/s-deep"
        await anna.send("/queue/s-pattern", "3")
        assert (await anna.message("3")).headers["destination"] == "/queue/s-pattern"
        assert [*anna.inbox] == []


async def test_a_selector_is_refused_clearly(spring: Server) -> None:
    async with await connect(spring, "s-selector") as anna:
        await anna.subscribe("/user/queue/errors", id="errors")
        await anna.subscribe("/topic/x", id="x", headers={"selector": "headers.a == 'b'"}, receipt=False)
        told = await refusal(anna)
        assert (told.headers["code"], told.headers["message"]) == (
            "not-allowed",
            "selectors are not supported: subscribe to a narrower destination",
        )
        await anna.subscribe("/topic/x", id="x")


async def test_a_handler_called_in_a_transaction_is_called_at_its_commit(spring: Server) -> None:
    async with await connect(spring, "s-tx") as anna:
        await anna.subscribe("/topic/greetings")
        await anna.command("BEGIN", {"transaction": "t"})
        for body in ("one", "two"):
            await anna.send("/app/hello", body, headers={"transaction": "t"})
        await anna.barrier()
        assert [*anna.inbox] == []
        await anna.command("COMMIT", {"transaction": "t"})
        assert [json.loads(m.body)["content"] for m in await anna.messages(2)] == ["Hello, one!", "Hello, two!"]
