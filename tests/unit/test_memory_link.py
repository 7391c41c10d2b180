"""What is in memory, by its URL: who shares it and who does not."""

from itertools import count

import pytest

from postroom.backplane.base import Subject, open_backplane
from postroom.config import Settings
from postroom.memory_link import name_of
from postroom.node import backplane_url
from postroom.store import open_store
from postroom.testing.contracts.backplane import running
from postroom.testing.contracts.log_store import INBOX, add, item

_names = count(1)


@pytest.mark.parametrize(
    ("url", "name"),
    [("memory:", ""), ("memory://", ""), ("memory:a", "a"), ("memory://a", "a"), ("memory://a/", "a")],
)
def test_the_name_in_the_url(url: str, name: str) -> None:
    assert name_of(url) == name
    assert backplane_url(Settings(store=url)) == (url if name else ""), "a store that is nobody else's is none"


@pytest.mark.parametrize("form", ["memory:", "memory://"])
async def test_stores_of_one_name_are_one(form: str) -> None:
    name = f"shared-{next(_names)}"
    async with open_store(f"memory:{name}") as one, open_store(form + name) as other, open_store(form) as alone:
        await add(one, item(b"hello"))
        assert (await other.heads([INBOX]))[0].number == 1
        assert (await alone.heads([INBOX]))[0].number == 0


@pytest.mark.parametrize("name", ["", "chat"])
async def test_backplanes_of_one_name_hear_one_another(name: str) -> None:
    subject = Subject("topic./topic/x")
    async with (
        running(open_backplane(f"memory://{name}")) as one,
        running(open_backplane(f"memory:{name}")) as other,
        running(open_backplane("memory://elsewhere")) as stranger,
    ):
        for peer in (one, other, stranger):
            await peer.backplane.subscribe([subject])
        await one.backplane.publish([(subject, b"1")])
        await other.until(lambda: other.of(subject) == [b"1"])
        assert stranger.heard == []
