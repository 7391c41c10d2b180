"""Transactions: all of it or nothing, in order, and never beyond its session."""

import asyncio
from collections.abc import Callable, Iterator

import pytest
from tests.conftest import Start
from tests.support.client import StompClient
from tests.support.frames import Frame, encode
from tests.support.server import Server

pytestmark = pytest.mark.e2e

INBOX = "/user/queue/inbox"
SMALL = """
[[channel]]
code = "SMALL"
destination = "/user/*/queue/small"
retention = { max_messages = 3 }
[[channel]]
code = "STAFF"
destination = "/topic/staff"
send = "nobody"
"""
Maker = Callable[..., Server]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, _start: Start) -> Iterator[Server]:
    """A server with mailboxes of three messages."""
    server = _start(tmp_path_factory.mktemp("small"), SMALL)
    yield server
    server.close()


def to(user: str, name: str = "/queue/inbox") -> str:
    return f"/user/{user}{name}"


async def begin(client: StompClient, *sends: tuple[str, str], name: str = "t") -> None:
    """An open transaction with these SENDs."""
    await client.command("BEGIN", {"transaction": name})
    for destination, body in sends:
        await client.send(destination, body, headers={"transaction": name}, receipt=False)


async def refusal(client: StompClient, receipt: str) -> Frame:
    """What is told of a COMMIT that fails: it has no RECEIPT."""
    await client.command("COMMIT", {"transaction": "t", "receipt": receipt}, receipt=False)
    told = await client.message("errors")
    assert told.headers["receipt-id"] == receipt
    await client.barrier()
    assert [*client.inbox] == []
    return told


async def test_its_sends_keep_their_order_among_all_others(small: Server) -> None:
    async with await StompClient.connect(small, "o-ann") as ann:
        await ann.subscribe(INBOX)
        await ann.send(to("o-ann"), "before", receipt=False)
        await begin(ann, *((to("o-ann"), f"within {number}") for number in range(50)))
        await ann.command("COMMIT", {"transaction": "t"}, receipt=False)
        await ann.send(to("o-ann"), "behind", receipt=False)
        came = [message.text for message in await ann.messages(52)]
        assert came == ["before", *(f"within {number}" for number in range(50)), "behind"]


async def test_a_full_mailbox_refuses_all_of_it(small: Server) -> None:
    async with (
        await StompClient.connect(small, "f-ann") as ann,
        await StompClient.connect(small, "f-ben") as ben,
    ):
        await ann.subscribe("/user/queue/errors", id="errors")
        await ben.subscribe(INBOX, id="inbox")
        await ben.subscribe("/topic/f", id="topic")
        await ann.send(to("f-full", "/queue/small"), "already there")
        sends = (
            (to("f-ben"), "for ben"),
            ("/topic/f", "for all"),
            *((to("f-full", "/queue/small"), f"too many {number}") for number in range(3)),
        )
        await begin(ann, *sends)
        told = await refusal(ann, "c1")
        assert told.headers["code"] == "mailbox-full"
        assert to("f-full", "/queue/small") in told.text
        # What comes behind it shows that nothing of it came before.
        await ann.send(to("f-ben"), "the next")
        await ann.send("/topic/f", "the next")
        assert [(await ben.message("inbox")).text, (await ben.message("topic")).text] == ["the next", "the next"]
        async with await StompClient.connect(small, "f-full") as full:
            await full.subscribe("/user/queue/small", ack="client")
            assert (await full.message()).text == "already there"
            await ann.send(to("f-full", "/queue/small"), "fits")
            assert (await full.message()).text == "fits"


@pytest.mark.parametrize(
    ("destination", "code"),
    [
        ("/topic/staff", "not-allowed"),
        ("/nowhere/at/all", "unknown-destination"),
        ("/app/nobody", "unknown-destination"),
    ],
)
async def test_one_that_may_not_be_sent_refuses_all_of_it(small: Server, destination: str, code: str) -> None:
    async with await StompClient.connect(small, "n-ann") as ann:
        await ann.subscribe("/user/queue/errors", id="errors")
        await ann.subscribe("/topic/n", id="topic")
        await ann.subscribe(INBOX, id="inbox")
        await begin(ann, ("/topic/n", "first"), (to("n-ann"), "second"), (destination, "third"))
        assert (await refusal(ann, "c2")).headers["code"] == code


async def test_an_open_one_dies_with_its_session(small: Server) -> None:
    async with await StompClient.connect(small, "d-ann") as ann:
        await begin(ann, (to("d-ben"), "never"))
        await ann.disconnect()
    async with await StompClient.connect(small, "d-ann") as ann:
        await begin(ann, (to("d-ben"), "cut"))
        await ann.cut()
    async with (
        await StompClient.connect(small, "d-ann") as again,
        await StompClient.connect(small, "d-ben") as ben,
    ):
        await ben.subscribe(INBOX)
        await again.send(to("d-ben"), "hello")
        assert (await ben.message()).text == "hello"
        await again.raw(encode("COMMIT", {"transaction": "t"}))
        assert "no open transaction" in (await again.error()).headers["message"]


async def test_two_open_ones_are_apart(small: Server) -> None:
    async with await StompClient.connect(small, "a-ann") as ann:
        await ann.subscribe(INBOX)
        await begin(ann, (to("a-ann"), "one"), name="first")
        await begin(ann, (to("a-ann"), "two"), name="second")
        await ann.command("COMMIT", {"transaction": "second"})
        assert (await ann.message()).text == "two"
        await ann.command("COMMIT", {"transaction": "first"})
        assert (await ann.message()).text == "one"


@pytest.mark.parametrize("ack", ["client", "client-individual"])
async def test_an_ack_counts_from_its_commit_on(small: Server, ack: str) -> None:
    user = f"k-{ack}"
    async with await StompClient.connect(small, user) as ann:
        await ann.subscribe(INBOX, ack=ack)
        for body in ("committed", "aborted"):
            await ann.send(to(user), body)
            message = await ann.message()
            await ann.command("BEGIN", {"transaction": body})
            await ann.command("ACK", {"id": message.headers["ack"], "transaction": body})
            await ann.send(to(user, "/queue/done"), body, headers={"transaction": body})
        await ann.command("COMMIT", {"transaction": "committed"})
        await ann.command("ABORT", {"transaction": "aborted"})
    async with await StompClient.connect(small, user) as again:
        await again.subscribe(INBOX, id="inbox", ack=ack)
        assert (await again.message("inbox")).text == "aborted"
        await again.subscribe("/user/queue/done", id="done")
        assert (await again.message("done")).text == "committed"
        await again.barrier()
        assert [*again.inbox] == []


async def test_the_largest_one_is_stored_whole(small: Server) -> None:
    async with await StompClient.connect(small, "l-ann") as ann:
        await ann.command("BEGIN", {"transaction": "t"})
        for number in range(1000):
            await ann.send(to("l-ann"), str(number), headers={"transaction": "t"}, receipt=False)
        await ann.command("COMMIT", {"transaction": "t"})
        await ann.subscribe(INBOX)
        assert [message.text for message in await ann.messages(1000)] == [str(number) for number in range(1000)]


async def test_one_frame_too_many_ends_the_session(small: Server) -> None:
    async with await StompClient.connect(small, "m-ann") as ann:
        await begin(ann)
        for number in range(1001):
            await ann.send("/topic/m", str(number), headers={"transaction": "t"}, receipt=False)
        assert "at most 1000 frames" in (await ann.error()).headers["message"]


async def test_what_was_committed_survives_sigkill(server: Server) -> None:
    async with await StompClient.connect(server, "ann") as ann:
        await begin(ann, (to("ben"), "1"), (to("carl"), "2"))
        await ann.command("COMMIT", {"transaction": "t"})
    await asyncio.to_thread(server.restart)
    for user, body in (("ben", "1"), ("carl", "2")):
        async with await StompClient.connect(server, user) as client:
            await client.subscribe(INBOX)
            assert (await client.message()).text == body


async def test_a_kill_while_it_is_stored_keeps_all_of_it_or_nothing(make_server: Maker) -> None:
    server = make_server()
    for number in range(2):
        async with await StompClient.connect(server, "ann") as ann:
            await begin(ann, *((to(user), f"{number} {user}") for user in ("ben", "carl") for _ in range(300)))
            await ann.command("COMMIT", {"transaction": "t"}, receipt=False)
            await asyncio.to_thread(server.restart)
    counts: list[dict[str, int]] = []
    for user in ("ben", "carl"):
        async with await StompClient.connect(server, user) as client:
            await client.subscribe(INBOX)
            await client.send(to(user), "end")
            came = []
            while (message := await client.message()).text != "end":
                came.append(message.text.partition(" ")[0])
            counts.append({number: came.count(number) for number in came})
    assert counts[0] == counts[1]
    assert {*counts[0].values()} <= {300}
