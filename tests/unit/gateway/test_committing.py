"""Transactions where the store or a handler fails."""

import json
from collections.abc import AsyncIterator, Sequence

import pytest

from postroom.errors import OutcomeUnknown, Refused, StoreUnavailable
from postroom.handlers import Handlers, Request
from postroom.store.base import Append, Appended
from postroom.store.memory import MemoryStore
from postroom.testing.cluster import Client, Cluster, Member

INBOX = "/user/queue/inbox"


class Failing(MemoryStore):
    """A store in memory that fails while it is told to."""

    error: StoreUnavailable | None = None

    def __init__(self) -> None:
        super().__init__("memory:committing")
        self.batches: list[int] = []

    async def append(self, batch: Sequence[Append]) -> Sequence[Appended | Refused]:
        self.batches.append(len(batch))
        if self.error is not None:
            raise self.error
        return await super().append(batch)


@pytest.fixture
def store() -> Failing:
    return Failing()


@pytest.fixture
def called() -> list[bytes]:
    """What the handlers were called with."""
    return []


@pytest.fixture
async def node(store: Failing, called: list[bytes]) -> AsyncIterator[Member]:
    handlers = Handlers()

    async def keep(request: Request) -> None:
        called.append(request.body)

    def fail(request: Request) -> None:
        raise ValueError("a secret")

    handlers.add("/keep", keep)
    handlers.add("/fail", fail)
    async with Cluster(1, store=lambda name: store, handlers=handlers) as (member,):
        yield member


async def commit(client: Client, *sends: tuple[str, bytes]) -> None:
    """A transaction with these SENDs, and its COMMIT with the receipt `done`."""
    client.pipe.say("BEGIN", {"transaction": "t"})
    for destination, body in sends:
        client.pipe.say("SEND", {"destination": destination, "transaction": "t"}, body)
    client.pipe.say("COMMIT", {"transaction": "t", "receipt": "done"})


async def told(client: Client) -> dict[str, str]:
    """What the error queue says; nothing else came before, and no receipt of the COMMIT behind it."""
    message = await client.message()
    assert message.headers["subscription"] == "errors"
    await client.subscribe("/topic/end", id="end")
    await client.send("/topic/end", b"end")
    assert (await client.frame(lambda _: True)).body == b"end"
    said: dict[str, str] = json.loads(message.body)
    return said


@pytest.mark.parametrize("error", [StoreUnavailable("it is down"), OutcomeUnknown("nobody knows")])
async def test_a_store_that_fails_refuses_all_in_one_sentence(
    node: Member, store: Failing, called: list[bytes], error: StoreUnavailable
) -> None:
    async with node.connect("ann") as ann:
        await ann.subscribe("/user/queue/errors", id="errors")
        await ann.subscribe("/topic/a", id="topic")
        store.error = error
        await commit(ann, ("/user/ben/queue/inbox", b"1"), ("/topic/a", b"2"), ("/app/keep", b"3"))
        said = await told(ann)
        assert (said["code"], said["message"], said["receipt"]) == ("store-unavailable", str(error), "done")
        assert said["destination"] == "/user/ben/queue/inbox"
        assert called == []
        store.error = None
        await commit(ann, ("/user/ben/queue/inbox", b"1"), ("/topic/a", b"2"), ("/app/keep", b"3"))
        assert (await ann.frame(lambda frame: frame.command == "RECEIPT")).headers["receipt-id"] == "done"
        assert called == [b"3"]


async def test_its_messages_go_to_the_store_in_one_batch(node: Member, store: Failing) -> None:
    async with node.connect("ann") as ann:
        store.batches.clear()
        await commit(ann, *(("/user/ben/queue/inbox", b"%d" % number) for number in range(50)))
        await ann.frame(lambda frame: frame.command == "RECEIPT")
        assert store.batches == [50]


async def test_a_handler_that_fails_takes_back_nothing_and_holds_up_nothing(node: Member, called: list[bytes]) -> None:
    async with node.connect("ann") as ann, node.connect("ben") as ben:
        await ann.subscribe("/user/queue/errors", id="errors")
        await ben.subscribe(INBOX)
        await commit(ann, ("/app/fail", b"1"), ("/user/ben/queue/inbox", b"2"), ("/app/keep", b"3"))
        said = await told(ann)
        assert (said["code"], said["destination"]) == ("refused", "/app/fail")
        assert "secret" not in said["message"]
        assert (await ben.message()).body == b"2"
        assert called == [b"3"]
