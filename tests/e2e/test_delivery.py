"""The promises of durable delivery, as a client sees them."""

import asyncio
import json
from collections.abc import Callable

import pytest
from tests.support.client import StompClient
from tests.support.cluster import Nodes
from tests.support.frames import Frame, encode
from tests.support.server import Server

pytestmark = pytest.mark.e2e

INBOX = "/user/queue/inbox"
Maker = Callable[..., Server]


def to(user: str, name: str = "/queue/inbox") -> str:
    return f"/user/{user}{name}"


def texts(messages: list[Frame]) -> list[str]:
    return [message.text for message in messages]


async def barrier_message(sender: StompClient, user: str, receiver: StompClient) -> list[Frame]:
    """All that waits for `receiver`, by a last message that comes behind it."""
    await sender.send(to(user), "the last one")
    came: list[Frame] = []
    while (message := await receiver.message()).text != "the last one":
        came.append(message)
    return came


# ── stored, then told ─────────────────────────────────────────────────────────────────────────────────────


def known_as_new(server: Server, message: Frame) -> bool:
    """Not marked as redelivered. Among several nodes, what came while its user was here may be marked all the same."""
    return isinstance(server, Nodes) or "redelivered" not in message.headers


async def test_a_receipted_message_survives_sigkill(server: Server) -> None:
    async with await StompClient.connect(server, "ann") as ann:
        await ann.send(to("ben"), "kept")
    await asyncio.to_thread(server.restart)
    async with await StompClient.connect(server, "ben") as ben:
        await ben.subscribe(INBOX)
        message = await ben.message()
    assert message.text == "kept"
    assert message.headers["sender"] == "ann"
    assert message.headers["destination"] == INBOX


async def test_messages_wait_for_a_user_who_is_away(shared_server: Server) -> None:
    async with (
        await StompClient.connect(shared_server, "away-1") as ann,
        await StompClient.connect(shared_server, "away-2") as ben,
    ):
        await ann.send(to("away-2"), "one")
        await ann.send(to("away-2"), "two")
        await ben.subscribe(INBOX)
        first, second = await ben.messages(2)
        assert texts([first, second]) == ["one", "two"]
        assert known_as_new(shared_server, first)
        assert second.headers["previous"] == first.headers["offset"]


async def test_backlog_then_live_in_order_with_nothing_twice(shared_server: Server) -> None:
    async with (
        await StompClient.connect(shared_server, "order-1") as ann,
        await StompClient.connect(shared_server, "order-2") as ben,
    ):
        for number in range(300):
            await ann.send(to("order-2"), str(number), receipt=False)
        await ann.barrier()

        async def live() -> None:
            for number in range(300, 900):
                await ann.send(to("order-2"), str(number), receipt=False)
            await ann.barrier()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(live())
            await ben.subscribe(INBOX, receipt=False)
            came = texts(await ben.messages(900))
        assert came == [str(number) for number in range(900)]
        assert await barrier_message(ann, "order-2", ben) == []


async def test_first_delivery_is_not_marked_as_redelivered(shared_server: Server) -> None:
    async with await StompClient.connect(shared_server, "first") as ann:
        await ann.subscribe(INBOX)
        await ann.send(to("first"), "new")
        assert "redelivered" not in (await ann.message()).headers


async def test_what_was_not_proven_comes_again_marked_under_the_same_id(shared_server: Server) -> None:
    async with await StompClient.connect(shared_server, "mute") as sender:
        async with await StompClient.connect(shared_server, "silent", pongs=False) as silent:
            await silent.subscribe(INBOX)
            await sender.send(to("silent"), "seen by nobody, perhaps")
            first = await silent.message()
        async with await StompClient.connect(shared_server, "silent") as again:
            await again.subscribe(INBOX)
            second = await again.message()
    assert second.headers["message-id"] == first.headers["message-id"]
    assert second.headers["redelivered"] == "true"
    assert "redelivered" not in first.headers


async def test_what_was_not_proven_comes_again_after_a_crash(server: Server) -> None:
    async with await StompClient.connect(server, "ann") as ann:
        await ann.send(to("ben"), "stored before")
        async with await StompClient.connect(server, "ben", pongs=False) as ben:
            await ben.subscribe(INBOX)
            await ann.send(to("ben"), "live")
            before = await ben.messages(2)
            await asyncio.to_thread(server.restart)
    async with (
        await StompClient.connect(server, "ann") as ann,
        await StompClient.connect(server, "ben") as ben,
    ):
        await ann.send(to("ben"), "after")
        await ben.subscribe(INBOX)
        after = await ben.messages(3)
    assert texts(after) == ["stored before", "live", "after"]
    assert [m.headers["message-id"] for m in after[:2]] == [m.headers["message-id"] for m in before]
    assert [m.headers.get("redelivered") for m in after[:2]] == ["true", "true"]
    assert known_as_new(server, after[2])


async def test_what_the_pong_proved_does_not_come_again(shared_server: Server) -> None:
    async with await StompClient.connect(shared_server, "pong-1") as ann:
        async with await StompClient.connect(shared_server, "pong-2") as ben:
            await ben.subscribe(INBOX)
            await ann.send(to("pong-2"), "received")
            await ben.message()
            await ben.confirmed()
        async with await StompClient.connect(shared_server, "pong-2") as ben:
            await ben.subscribe(INBOX)
            assert await barrier_message(ann, "pong-2", ben) == []


async def test_what_the_pong_proved_does_not_come_again_after_a_crash(server: Server) -> None:
    async with await StompClient.connect(server, "ben") as ben:
        await ben.subscribe(INBOX)
        await ben.send(to("ben"), "received")
        await ben.message()
        await ben.confirmed()
    await asyncio.to_thread(server.restart)
    async with await StompClient.connect(server, "ben") as ben:
        await ben.subscribe(INBOX)
        assert await barrier_message(ben, "ben", ben) == []


# ── acknowledgements ──────────────────────────────────────────────────────────────────────────────────────


async def test_ack_client_confirms_all_up_to_it(shared_server: Server) -> None:
    async with await StompClient.connect(shared_server, "ack-c") as ann:
        await ann.subscribe(INBOX, ack="client")
        for text in "abc":
            await ann.send(to("ack-c"), text)
        came = await ann.messages(3)
        await ann.ack(came[1])
    async with await StompClient.connect(shared_server, "ack-c") as ann:
        await ann.subscribe(INBOX, ack="client")
        again = await barrier_message(ann, "ack-c", ann)
        assert texts(again) == ["c"]
        assert again[0].headers["redelivered"] == "true"


async def test_ack_client_needs_more_than_a_pong(shared_server: Server) -> None:
    async with await StompClient.connect(shared_server, "ack-n") as ann:
        await ann.subscribe(INBOX, ack="client")
        await ann.send(to("ack-n"), "not acknowledged")
        await ann.message()
        await ann.confirmed()
    async with await StompClient.connect(shared_server, "ack-n") as ann:
        await ann.subscribe(INBOX)
        assert (await ann.message()).text == "not acknowledged"


async def test_ack_client_individual_moves_the_cursor_over_the_contiguous_run_alone(shared_server: Server) -> None:
    async with await StompClient.connect(shared_server, "ack-i") as ann:
        await ann.subscribe(INBOX, ack="client-individual")
        for text in "abc":
            await ann.send(to("ack-i"), text)
        a, _, c = await ann.messages(3)
        await ann.ack(c)
        await ann.ack(a)
    async with await StompClient.connect(shared_server, "ack-i") as ann:
        await ann.subscribe(INBOX, ack="client-individual")
        assert texts(await barrier_message(ann, "ack-i", ann)) == ["b", "c"]


async def test_nack_brings_the_message_again(shared_server: Server) -> None:
    async with await StompClient.connect(shared_server, "nack") as ann:
        await ann.subscribe(INBOX, ack="client-individual")
        await ann.send(to("nack"), "refused once")
        first = await ann.message()
        await ann.nack(first)
        second = await ann.message()
        assert second.headers["message-id"] == first.headers["message-id"]
        assert second.headers["redelivered"] == "true"
        await ann.ack(second)
        assert await barrier_message(ann, "nack", ann) == []


# ── idempotence ───────────────────────────────────────────────────────────────────────────────────────────


async def test_the_same_key_is_stored_once(shared_server: Server) -> None:
    async with await StompClient.connect(shared_server, "key-1") as ann:
        await ann.send(to("key-2"), "once", headers={"idempotency-key": "k"})
        await ann.send(to("key-2"), "once", headers={"idempotency-key": "k"})
        async with await StompClient.connect(shared_server, "key-3") as other:
            await other.send(to("key-2"), "another sender's", headers={"idempotency-key": "k"})
        async with await StompClient.connect(shared_server, "key-2") as ben:
            await ben.subscribe(INBOX)
            assert texts(await barrier_message(ann, "key-2", ben)) == ["once", "another sender's"]


async def test_the_same_key_is_stored_once_across_a_crash(server: Server) -> None:
    async with await StompClient.connect(server, "ann") as ann:
        await ann.send(to("ben"), "once", headers={"idempotency-key": "k"})
    await asyncio.to_thread(server.restart)
    async with await StompClient.connect(server, "ann") as ann, await StompClient.connect(server, "ben") as ben:
        await ann.send(to("ben"), "once", headers={"idempotency-key": "k"})
        await ben.subscribe(INBOX)
        assert texts(await barrier_message(ann, "ben", ben)) == ["once"]


async def test_the_same_key_with_another_body_is_refused(shared_server: Server) -> None:
    async with await StompClient.connect(shared_server, "key-r") as ann:
        await ann.subscribe("/user/queue/errors", id="errors")
        await ann.send(to("key-r"), "this", headers={"idempotency-key": "k"})
        await ann.send(to("key-r"), "that", headers={"idempotency-key": "k", "receipt": "never"}, receipt=False)
        refusal = await ann.message("errors")
        assert refusal.headers["code"] == "idempotency-key-reused"
        assert json.loads(refusal.body)["receipt"] == "never"
        await ann.barrier()
        assert not any(frame.headers.get("receipt-id") == "never" for frame in ann.inbox if frame.command == "RECEIPT")


# ── tabs and devices ──────────────────────────────────────────────────────────────────────────────────────


async def test_every_tab_gets_it_and_a_later_one_nothing(shared_server: Server) -> None:
    async with (
        await StompClient.connect(shared_server, "tabs") as sender,
        await StompClient.connect(shared_server, "tabby") as one,
        await StompClient.connect(shared_server, "tabby") as two,
    ):
        await one.subscribe(INBOX)
        await two.subscribe(INBOX)
        await sender.send(to("tabby"), "for both")
        assert (await one.message()).text == "for both"
        assert (await two.message()).text == "for both"
        await one.confirmed()
        async with await StompClient.connect(shared_server, "tabby") as three:
            await three.subscribe(INBOX)
            assert await barrier_message(sender, "tabby", three) == []


async def test_a_device_has_a_cursor_of_its_own(shared_server: Server) -> None:
    async with await StompClient.connect(shared_server, "dev-s") as sender:
        await sender.send(to("dev"), "for each device")
        for device in ("phone", "desk"):
            async with await StompClient.connect(shared_server, "dev", device=device) as ben:
                await ben.subscribe(INBOX)
                message = await ben.message()
                assert message.text == "for each device"
                assert "redelivered" not in message.headers
                await ben.confirmed()
        async with await StompClient.connect(shared_server, "dev", device="phone") as ben:
            await ben.subscribe(INBOX)
            assert await barrier_message(sender, "dev", ben) == []


# ── bounds ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_is_over_the_window_stays_in_the_log(make_server: Maker) -> None:
    server = make_server("[delivery]\nmax-in-flight-messages = 3\n")
    async with await StompClient.connect(server, "ann") as ann, await StompClient.connect(server, "ben") as ben:
        await ben.subscribe(INBOX, ack="client")
        for number in range(10):
            await ann.send(to("ben"), str(number))
        await ben.barrier()
        first = await ben.messages(3)
        assert ben.waiting() == []
        await ben.ack(first[-1])
        second = await ben.messages(3)
        await ben.barrier()
        assert texts(first + second) == ["0", "1", "2", "3", "4", "5"]
        assert ben.waiting() == []
        await ben.ack(second[-1])
        third = await ben.messages(3)
        await ben.ack(third[-1])
        assert (await ben.message()).text == "9"


async def test_a_backlog_larger_than_the_window_arrives_whole(make_server: Maker) -> None:
    server = make_server("[delivery]\nmax-in-flight-messages = 10\n")
    async with await StompClient.connect(server, "ann") as ann:
        for number in range(100):
            await ann.send(to("ben"), str(number), receipt=False)
        await ann.barrier()
        async with await StompClient.connect(server, "ben") as ben:
            await ben.subscribe(INBOX)
            assert texts(await ben.messages(100)) == [str(number) for number in range(100)]


async def test_a_backlog_larger_than_the_write_buffer_arrives_whole(server: Server) -> None:
    body = "x" * 100_000
    async with await StompClient.connect(server, "ann") as ann:
        for number in range(100):
            await ann.send(to("ben"), f"{number} {body}", receipt=False)
        await ann.barrier()
        async with await StompClient.connect(server, "ben") as ben:
            await ben.subscribe(INBOX)
            came = [message.text.split()[0] for message in await ben.messages(100)]
            assert came == [str(number) for number in range(100)]
    assert server.metrics()["slow_consumers_cut"] == 0


async def test_a_backlog_of_large_headers_arrives_whole(server: Server) -> None:
    headers = {f"h{number}": "x" * 1000 for number in range(30)}
    async with await StompClient.connect(server, "ann") as ann:
        for number in range(100):
            await ann.send(to("ben"), str(number), receipt=False, headers=headers)
        await ann.barrier()
        async with await StompClient.connect(server, "ben") as ben:
            await ben.subscribe(INBOX)
            assert texts(await ben.messages(100)) == [str(number) for number in range(100)]
    assert server.metrics()["slow_consumers_cut"] == 0


async def test_a_topics_history_larger_than_the_write_buffer_arrives_whole(make_server: Maker) -> None:
    """No proof of receipt moves this reader on: it goes on as the pipe drains."""
    server = make_server(
        '[limits]\nwrite-buffer-bytes = 262144\n[[channel]]\ncode="LONG"\ndestination="/topic/long"\nhistory=1000\n'
    )
    body = "x" * 20_000
    async with await StompClient.connect(server, "ann") as ann, await StompClient.connect(server, "ben") as ben:
        for number in range(200):
            await ann.send("/topic/long", f"{number} {body}", receipt=False)
        await ann.barrier()
        await ben.subscribe("/topic/long", headers={"after-offset": "0", "epoch": "0"}, receipt=False)
        came = [message.text.split()[0] for message in await ben.messages(200)]
        assert came == [str(number) for number in range(200)]


CHANNELS = """
[[channel]]
code = "SMALL"
destination = "/user/*/queue/small"
delivery = "durable"
retention = { max-messages = 3, on-overflow = "reject" }

[[channel]]
code = "RING"
destination = "/user/*/queue/ring"
delivery = "durable"
retention = { max-messages = 3, on-overflow = "drop-oldest" }

[[channel]]
code = "NEWS"
destination = "/topic/news"
history = 5

[[channel]]
code = "OFFICE"
destination = "/topic/office/**"
send = ["user:boss"]
subscribe = ["user:boss", "user:clerk"]
"""


async def test_a_full_mailbox_refuses_and_says_so(make_server: Maker) -> None:
    server = make_server(CHANNELS)
    async with await StompClient.connect(server, "ann") as ann:
        await ann.subscribe("/user/queue/errors", id="errors")
        for number in range(3):
            await ann.send(to("ben", "/queue/small"), str(number))
        await ann.send(to("ben", "/queue/small"), "3", headers={"receipt": "never"}, receipt=False)
        refusal = await ann.message("errors")
        assert refusal.headers["code"] == "mailbox-full"
        assert refusal.headers["receipt-id"] == "never"
        await ann.barrier()
        assert [frame.command for frame in ann.inbox] == []
        async with await StompClient.connect(server, "ben") as ben:
            await ben.subscribe("/user/queue/small")
            assert texts(await ben.messages(3)) == ["0", "1", "2"]
            await ben.confirmed()
        await ann.send(to("ben", "/queue/small"), "there is room again")


async def test_a_ring_drops_the_oldest_and_counts_them(make_server: Maker) -> None:
    server = make_server(CHANNELS)
    async with await StompClient.connect(server, "ann") as ann, await StompClient.connect(server, "ben") as ben:
        for number in range(8):
            await ann.send(to("ben", "/queue/ring"), str(number))
        await ben.subscribe("/user/queue/ring")
        came = await ben.messages(3)
        assert texts(came) == ["5", "6", "7"]
        assert [message.headers.get("skipped") for message in came] == ["5", None, None]


async def test_a_topics_history_goes_on_where_the_client_was(make_server: Maker) -> None:
    server = make_server(CHANNELS)
    async with await StompClient.connect(server, "ann") as ann, await StompClient.connect(server, "ben") as ben:
        await ben.subscribe("/topic/news")
        for number in range(2):
            await ann.send("/topic/news", str(number))
        first, second = await ben.messages(2)
        await ben.command("UNSUBSCRIBE", {"id": "s"})
        await ann.send("/topic/news", "2")
        place = {"after-offset": first.headers["offset"], "epoch": first.headers["epoch"]}
        answer = await ben.subscribe("/topic/news", headers=place)
        assert answer is not None
        assert answer.headers["recovered"] == "true"
        came = await ben.messages(2)
        assert texts(came) == ["1", "2"]
        assert came[0].headers["message-id"] == second.headers["message-id"]
        assert came[0].headers["recovered"] == "true"
        await ann.send("/topic/news", "3")
        assert (await ben.message()).text == "3"
        await ben.command("UNSUBSCRIBE", {"id": "s"})
        for number in range(4, 12):
            await ann.send("/topic/news", str(number))
        answer = await ben.subscribe("/topic/news", headers=place)
        assert answer is not None
        assert answer.headers["recovered"] == "false"
        came = await ben.messages(5)
        assert texts(came) == ["7", "8", "9", "10", "11"]
        assert came[0].headers["recovered"] == "false"


async def test_a_place_that_a_client_made_up_does_no_harm(make_server: Maker) -> None:
    server = make_server(CHANNELS)
    async with await StompClient.connect(server, "ann") as ann:
        await ann.subscribe("/user/queue/errors", id="errors")
        for claimed in ("9" * 19, "9" * 5000, "-1", "x"):
            place = {"after-offset": "0", "epoch": claimed}
            await ann.subscribe("/topic/news", id="made-up", headers=place, receipt=False)
            assert (await ann.message("errors")).headers["code"] == "not-allowed"
        await ann.subscribe("/topic/news", id="later", headers={"after-offset": "0", "epoch": "9" * 17})
        await ann.subscribe("/topic/news", id="fresh")
        await ann.send("/topic/news", "hello")
        assert len((await ann.message("fresh")).headers["epoch"]) < 17


async def test_a_topics_history_survives_a_crash(make_server: Maker) -> None:
    server = make_server(CHANNELS)
    async with await StompClient.connect(server, "ann") as ann:
        await ann.subscribe("/topic/news")
        await ann.send("/topic/news", "seen")
        seen = await ann.message()
        await ann.send("/topic/news", "missed")
    await asyncio.to_thread(server.restart)
    async with await StompClient.connect(server, "ann") as ann:
        place = {"after-offset": seen.headers["offset"], "epoch": seen.headers["epoch"]}
        await ann.subscribe("/topic/news", headers=place)
        assert (await ann.message()).text == "missed"


# ── destinations and permissions ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["plain", "a/b", "käthe müller", "100%", "x:y", "back\\slash"])
async def test_a_users_name_is_percent_encoded_in_a_destination(shared_server: Server, name: str) -> None:
    from urllib.parse import quote

    async with await StompClient.connect(shared_server, name) as ann:
        assert ann.connected.headers["user-name"] == name
        await ann.subscribe(INBOX)
        await ann.send(f"/user/{quote(name, safe='')}/queue/inbox", "hello")
        assert (await ann.message()).headers["sender"] == name


async def test_a_pattern_hears_what_it_covers(shared_server: Server) -> None:
    async with await StompClient.connect(shared_server, "pattern") as ann:
        await ann.subscribe("/topic/rooms/*/chat", id="one")
        await ann.subscribe("/topic/rooms/**", id="all")
        await ann.send("/topic/rooms/7/chat", "covered by both")
        await ann.send("/topic/rooms/7/other", "covered by one")
        assert [(await ann.message("one")).text] == ["covered by both"]
        came = await ann.messages(2, "all")
        assert texts(came) == ["covered by both", "covered by one"]
        assert came[0].headers["destination"] == "/topic/rooms/7/chat"
        await ann.barrier()
        assert ann.waiting() == []


async def test_nobody_can_listen_to_another_users_destination(shared_server: Server) -> None:
    tries = [
        "/user/victim/queue/inbox",
        "/user/*/queue/inbox",
        "/user/**",
        "/queue/**",
        "/**",
        "/queue/inbox-uservictim",
    ]
    async with (
        await StompClient.connect(shared_server, "thief") as thief,
        await StompClient.connect(shared_server, "victim") as victim,
        await StompClient.connect(shared_server, "friend") as friend,
    ):
        await victim.subscribe(INBOX)
        for number, destination in enumerate(tries):
            await thief.subscribe(destination, id=f"t{number}", receipt=False)
        await thief.barrier()
        await friend.send(to("victim"), "secret")
        assert (await victim.message()).text == "secret"
        await thief.barrier()
        assert thief.waiting() == []


async def test_permissions_of_a_channel(make_server: Maker) -> None:
    server = make_server(CHANNELS)
    async with await StompClient.connect(server, "boss") as boss, await StompClient.connect(server, "eve") as eve:
        await eve.subscribe("/user/queue/errors", id="errors")
        await boss.subscribe("/topic/office/all")
        await eve.subscribe("/topic/office/all", receipt=False)
        assert (await eve.message("errors")).headers["code"] == "not-allowed"
        await eve.subscribe("/topic/**", id="wide", receipt=False)
        assert (await eve.message("errors")).headers["code"] == "not-allowed"
        await eve.send("/topic/office/all", "out", headers={"receipt": "never"}, receipt=False)
        assert (await eve.message("errors")).headers["code"] == "not-allowed"
        await boss.send("/topic/office/all", "work")
        assert (await boss.message()).text == "work"
        await eve.barrier()
        assert [*eve.inbox] == []


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"destination": "/topic//twice"}, "unknown-destination"),
        ({"destination": "/app/prices"}, "unknown-destination"),
        ({"destination": "/topic/**", "selector": "price > 1"}, "not-allowed"),
        ({"destination": "/user/queue/inbox", "selector": "price > 1"}, "not-allowed"),
    ],
)
async def test_after_a_refused_subscription_its_id_is_free(
    shared_server: Server, headers: dict[str, str], code: str
) -> None:
    async with await StompClient.connect(shared_server, "again") as ann:
        await ann.subscribe("/user/queue/errors", id="errors")
        for _ in range(3):
            await ann.command("SUBSCRIBE", {**headers, "id": "mine"}, receipt=False)
            assert (await ann.message("errors")).headers["code"] == code
        await ann.subscribe("/topic/again", id="mine")
        await ann.send("/topic/again", "hello")
        assert (await ann.message("mine")).text == "hello"


async def test_a_client_cannot_set_the_servers_headers(shared_server: Server) -> None:
    async with await StompClient.connect(shared_server, "forger") as ann:
        await ann.subscribe(INBOX)
        forged = {"sender": "the boss", "redelivered": "true", "message-id": "1-1", "skipped": "9", "mine": "stays"}
        await ann.send(to("forger"), "hello", headers=forged)
        headers = (await ann.message()).headers
        assert headers["sender"] == "forger"
        assert headers["mine"] == "stays"
        assert headers["message-id"] != "1-1"
        assert "redelivered" not in headers
        assert "skipped" not in headers


@pytest.mark.parametrize(
    "destination",
    [
        "/app/nothing/here",
        "/nowhere/at/all",
        "/topic//twice",
        "/topic/../up",
        "no-slash",
        "/user/alone",
        "/topic/" + "x" * 300,
    ],
)
async def test_an_unknown_destination_is_refused_and_the_session_goes_on(
    shared_server: Server, destination: str
) -> None:
    async with await StompClient.connect(shared_server, "lost") as ann:
        await ann.subscribe("/user/queue/errors", id="errors")
        await ann.send(destination, "hello", headers={"receipt": "never"}, receipt=False)
        refusal = await ann.message("errors")
        assert refusal.headers["code"] == "unknown-destination"
        assert refusal.headers["receipt-id"] == "never"
        await ann.barrier()
        assert [*ann.inbox] == []


# ── transactions, receipts, errors ────────────────────────────────────────────────────────────────────────


async def test_a_transaction_is_sent_at_its_commit_or_never(shared_server: Server) -> None:
    async with await StompClient.connect(shared_server, "tx") as ann:
        await ann.subscribe(INBOX)
        for name in ("kept", "dropped"):
            await ann.command("BEGIN", {"transaction": name})
            for number in range(3):
                await ann.send(to("tx"), f"{name} {number}", headers={"transaction": name})
        await ann.barrier()
        assert ann.waiting() == []
        await ann.command("ABORT", {"transaction": "dropped"})
        await ann.command("COMMIT", {"transaction": "kept"})
        assert texts(await barrier_message(ann, "tx", ann)) == ["kept 0", "kept 1", "kept 2"]


async def test_receipts_leave_in_the_order_of_the_frames(shared_server: Server) -> None:
    async with await StompClient.connect(shared_server, "receipts") as ann:
        for number in range(200):
            destination = to("receipts") if number % 3 else "/topic/receipts"
            await ann.send(destination, str(number), headers={"receipt": str(number)}, receipt=False)
        came = [(await ann.frame(lambda frame: frame.command == "RECEIPT")).headers["receipt-id"] for _ in range(200)]
        assert came == [str(number) for number in range(200)]


async def test_a_receipt_of_disconnect_covers_all_before_it(server: Server) -> None:
    async with await StompClient.connect(server, "ann") as ann:
        for number in range(500):
            await ann.send(to("ben"), str(number), receipt=False)
        await ann.disconnect()
    await asyncio.to_thread(server.restart)
    async with await StompClient.connect(server, "ben") as ben:
        await ben.subscribe(INBOX)
        assert texts(await ben.messages(500)) == [str(number) for number in range(500)]


async def test_an_error_names_the_receipt_and_is_followed_by_the_close(shared_server: Server) -> None:
    async with await StompClient.connect(shared_server, "wrong") as ann:
        await ann.raw(encode("SEND", {"receipt": "r-77"}))
        error = await ann.error()
        assert error.headers["receipt-id"] == "r-77"
        assert "destination" in error.headers["message"]


# ── time ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_server_sends_heart_beats(make_server: Maker) -> None:
    server = make_server("[heart-beat]\nsend-ms = 200\nreceive-ms = 0\n")
    async with await StompClient.connect(server, "ann", headers={"heart-beat": "0,200"}) as ann:
        assert ann.connected.headers["heart-beat"] == "200,0"
        beats = 0
        async with asyncio.timeout(10):
            while beats < 3:
                beats += await ann.pipe.recv() == b"\n"


async def test_a_client_that_promised_heart_beats_and_falls_silent_is_closed(make_server: Maker) -> None:
    server = make_server("[heart-beat]\nsend-ms = 0\nreceive-ms = 200\n")
    async with (
        await StompClient.connect(server, "ann", headers={"heart-beat": "200,0"}) as ann,
        await StompClient.connect(server, "ben", headers={"heart-beat": "0,0"}) as ben,
    ):
        assert "heard" in (await ann.error()).headers["message"]
        await ben.barrier()


UNBOUNDED = """
[[channel]]
code = "USER"
destination = "/user/*/**"
delivery = "durable"
retention = { max-messages = 1000000 }
"""


async def test_sigterm_drains_and_loses_nothing(make_server: Maker) -> None:
    server = make_server("drain-seconds = 0.5\n" + UNBOUNDED)
    clients = [await StompClient.connect(server, f"c{number}") for number in range(5)]
    kept: list[str] = []

    async def talk(number: int, client: StompClient) -> int | None:
        sent = 0
        try:
            while True:
                text = f"{number}-{sent}"
                await client.send(to("reader"), text)
                kept.append(text)
                sent += 1
        except ConnectionError:
            return client.pipe.close_code

    async with asyncio.TaskGroup() as tasks:
        talks = [tasks.create_task(talk(number, client)) for number, client in enumerate(clients)]
        code = await asyncio.to_thread(server.stop)
    assert code == 0, server.output()
    assert [talk.result() for talk in talks] == [1012] * len(clients)
    assert kept
    await asyncio.to_thread(server.start)
    async with await StompClient.connect(server, "reader") as reader:
        await reader.subscribe(INBOX)
        came = texts(await barrier_message(reader, "reader", reader))
    assert set(kept) <= set(came)
    assert len(came) == len(set(came))
    for number in range(len(clients)):
        own = [int(text.split("-")[1]) for text in came if text.startswith(f"{number}-")]
        assert own == sorted(own)
    for client in clients:
        await client.cut()
