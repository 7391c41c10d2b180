"""A request that another node answers, with everything that a backplane may lose."""

import asyncio
import random
from collections.abc import Callable, MutableMapping
from typing import Any

import pytest

from postroom.envelope import Call, Gone, Got, Item, Part, Taken
from postroom.roaming import answering, asking
from postroom.roaming.answering import Answering
from postroom.roaming.asking import Asking
from postroom.sockjs.elsewhere import Outcome
from postroom.sockjs.exchange import Exchange
from postroom.sockjs.exchange import Gone as ClientGone

Lose = Callable[[Item], bool]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "RECEIVED_SECONDS", 0.05)
    monkeypatch.setattr(asking, "TAKEN_SECONDS", 0.05)
    monkeypatch.setattr(asking, "SLOW_SECONDS", 0.01)


class Client:
    """What a client has got of an answer, and the request that it made."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.complete = False
        self.left = asyncio.Event()
        self.slow = 0.0
        scope = {"type": "http", "method": "POST", "path": "/x", "query_string": b"", "headers": []}
        self.exchange = Exchange(scope, self._receive, self._send, path="/x")

    async def _receive(self) -> MutableMapping[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.body":
            await asyncio.sleep(self.slow)
            if not self.left.is_set():
                self.parts.append(message["body"])
                self.complete = not message["more_body"]


class Pair:
    """Two nodes, and what is lost between them."""

    def __init__(self, lose: Lose, parts: list[bytes]) -> None:
        self.client = Client()
        self.proven = False
        self.broken = False
        self._lose = lose
        self._parts = parts
        self._answering: Answering | None = None
        self._tasks = asyncio.TaskGroup()
        self._asking = Asking(1, self.client.exchange, send=self._to_home, quiet_seconds=0.3)

    async def run(self) -> Outcome:
        async with self._tasks:
            outcome = await self._asking.run(b"")
            await asyncio.sleep(0)
        return outcome

    def _to_home(self, item: Item) -> None:
        if self._lose(item):
            return
        match item:
            case Call():
                self._answering = Answering(item, send=self._to_front)
                self._to_front(Taken(1))
                self._tasks.create_task(self._answer(self._answering))
            case Got() if self._answering is not None:
                self._answering.got(item)
            case Gone() if self._answering is not None:
                self._answering.leave()
            case _:
                pass

    def _to_front(self, item: Item) -> None:
        if self._lose(item):
            return
        if isinstance(item, Part):
            self._asking.part(item)
        else:
            self._asking.taken()

    async def _answer(self, home: Answering) -> None:
        try:
            await home.send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
            for number, part in enumerate(self._parts, 1):
                await home.send({"type": "http.response.body", "body": part, "more_body": number < len(self._parts)})
            self.proven = True
        except ClientGone:
            self.broken = True


def nothing(item: Item) -> bool:
    return False


PARTS = [f"{number}".encode() for number in range(30)]


async def test_the_answer_comes_whole_and_in_order() -> None:
    pair = Pair(nothing, PARTS)
    assert await pair.run() is Outcome.ANSWERED
    assert (pair.client.parts, pair.client.complete, pair.proven) == (PARTS, True, True)


async def test_a_large_part_travels_in_pieces() -> None:
    large = bytes(range(256)) * 4096
    pair = Pair(nothing, [large])
    assert await pair.run() is Outcome.ANSWERED
    assert b"".join(pair.client.parts) == large
    assert max(map(len, pair.client.parts)) <= 256 * 1024


async def test_a_slow_client_is_waited_for() -> None:
    pair = Pair(nothing, PARTS[:12])
    pair.client.slow = 0.02
    assert await pair.run() is Outcome.ANSWERED
    assert (pair.client.parts, pair.proven) == (PARTS[:12], True)


async def test_a_client_that_leaves_breaks_the_answer_off() -> None:
    pair = Pair(nothing, PARTS)
    pair.client.slow = 0.01
    asyncio.get_running_loop().call_later(0.05, pair.client.left.set)
    assert await pair.run() is Outcome.ANSWERED
    assert pair.broken
    assert not pair.proven


@pytest.mark.parametrize("kind", [Call, Taken, Part, Got, Gone], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("seed", range(8))
async def test_whatever_is_lost_an_answer_that_counts_as_written_was_written(kind: type, seed: int) -> None:
    """What the client has is a beginning of the answer, without a hole. The home never believes more of it."""
    rng = random.Random(seed)
    pair = Pair(lambda item: isinstance(item, kind) and rng.random() < 0.3, PARTS)
    outcome = await pair.run()
    assert pair.client.parts == PARTS[: len(pair.client.parts)]
    if pair.proven:
        assert (pair.client.parts, pair.client.complete) == (PARTS, True)
    if outcome is not Outcome.ANSWERED:
        assert not pair.client.complete
        assert not pair.proven
