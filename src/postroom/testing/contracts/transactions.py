"""What a store of logs must do with items that are tied together. Subclass it, and give it a fixture `make`."""

# ruff: noqa: D102 (a test says its promise in its name)

from collections.abc import Sequence

import pytest

from postroom.channel import Retention
from postroom.errors import KeyReused, MailboxFull, MessageTooLarge, Refused, TransactionRefused
from postroom.identity import UserName
from postroom.position import LogKey
from postroom.store.base import SHARED, Append, Appended, Confirm, Store
from postroom.testing.contracts.log_store import (
    HISTORY,
    INBOX,
    OUTBOX,
    RING,
    SMALL,
    StoreFixtures,
    add,
    bodies,
    item,
)
from postroom.testing.contracts.marks import asynchronous

OTHER_USER = LogKey(UserName("eve"), "/queue/inbox")
TINY = Retention(max_bytes=4)


def tied(*bodies_: bytes, log: LogKey = INBOX, retention: Retention = SMALL, keys: Sequence[str] = ()) -> list[Append]:
    """One message for `log` for each body; all stand or fall together."""
    return [
        item(body, log=log, retention=retention, key=keys[at] if keys else None, tied=at > 0)
        for at, body in enumerate(bodies_)
    ]


async def kinds(store: Store, *items: Append) -> list[type]:
    """What becomes of `items`, in one batch."""
    return [type(outcome) for outcome in await store.append(items)]


@asynchronous
class TransactionContract(StoreFixtures):
    """Of items that are tied together all are stored, in order, or none.

    `several_logs` tells whether that holds for logs of several users: an engine of several servers may set it to False.
    """

    several_logs = True

    async def test_what_is_tied_is_stored_in_order(self, store: Store) -> None:
        answers = await add(store, *tied(b"1", b"2"), *tied(b"x", log=OUTBOX), *tied(b"3"))
        assert [answer.number for answer in answers] == [1, 2, 1, 3]
        assert answers[1].previous == answers[0].position.offset
        assert await bodies(store) == [b"1", b"2", b"3"]

    async def test_one_that_finds_no_room_takes_the_others_with_it(self, store: Store) -> None:
        await add(store, item(b"0", retention=SMALL))
        assert await kinds(store, *tied(b"1", b"2", b"3")) == [MailboxFull, TransactionRefused, TransactionRefused]
        assert await bodies(store) == [b"0"]
        assert await kinds(store, *tied(b"1", b"2")) == [Appended, Appended]

    async def test_what_is_not_tied_to_it_is_stored(self, store: Store) -> None:
        outcomes = await kinds(
            store, item(b"a", log=OUTBOX), *tied(b"1", b"2", b"3", b"4"), item(b"b", log=OUTBOX), *tied(b"5", b"6")
        )
        assert outcomes == [Appended, MailboxFull, *[TransactionRefused] * 3, Appended, Appended, Appended]
        assert await bodies(store, OUTBOX) == [b"a", b"b"]
        assert await bodies(store) == [b"5", b"6"]

    async def test_two_logs_of_a_user_stand_or_fall_together(self, store: Store) -> None:
        await add(store, *tied(b"1", b"2", b"3", log=OUTBOX))
        both = [item(b"a", retention=SMALL), item(b"b", log=OUTBOX, retention=SMALL, tied=True)]
        assert await kinds(store, *both) == [TransactionRefused, MailboxFull]
        assert await bodies(store) == []

    async def test_logs_of_several_users_stand_or_fall_together(self, store: Store) -> None:
        if not self.several_logs:
            pytest.skip("the engine keeps logs on several servers")
        await add(store, *tied(b"1", b"2", b"3", log=OTHER_USER))
        three = [
            item(b"a", retention=SMALL),
            item(b"b", log=HISTORY, retention=RING, tied=True),
            item(b"c", log=OTHER_USER, retention=SMALL, tied=True),
        ]
        assert await kinds(store, *three) == [TransactionRefused, TransactionRefused, MailboxFull]
        assert await bodies(store) == await bodies(store, HISTORY) == []

    async def test_several_users_get_what_is_tied(self, store: Store) -> None:
        answers = await add(store, item(b"a"), item(b"b", log=OTHER_USER, tied=True), item(b"c", tied=True))
        assert [answer.number for answer in answers] == [1, 1, 2]
        assert await bodies(store) == [b"a", b"c"]
        assert await bodies(store, OTHER_USER) == [b"b"]

    async def test_what_is_confirmed_makes_room_for_all_of_them(self, store: Store) -> None:
        first, second = await add(store, *tied(b"1", b"2"))
        await store.cursor(INBOX, SHARED)
        await store.confirm([Confirm(INBOX, SHARED, first.position, first.number)])
        assert await kinds(store, *tied(b"3", b"4", b"5")) == [MailboxFull, *[TransactionRefused] * 2]
        await store.confirm([Confirm(INBOX, SHARED, second.position, second.number)])
        assert await kinds(store, *tied(b"3", b"4", b"5")) == [Appended] * 3
        assert await bodies(store) == [b"3", b"4", b"5"]

    async def test_bytes_count_together(self, store: Store) -> None:
        assert await kinds(store, *tied(b"123", b"45", retention=TINY)) == [MailboxFull, TransactionRefused]
        assert await kinds(store, *tied(b"12", b"34", retention=TINY)) == [Appended, Appended]

    async def test_more_than_the_log_may_ever_hold_is_refused(self, store: Store) -> None:
        outcomes = await kinds(store, *tied(*(b"%d" % n for n in range(4))))
        assert outcomes == [MailboxFull, *[TransactionRefused] * 3]

    async def test_a_ring_takes_all_and_keeps_its_end(self, store: Store) -> None:
        await add(store, *tied(*(b"%d" % n for n in range(10)), retention=RING))
        assert await bodies(store) == [b"7", b"8", b"9"]

    async def test_one_that_is_too_large_takes_the_others_with_it(self, store: Store) -> None:
        outcomes = await kinds(store, *tied(b"1", b"12345", b"2", retention=TINY))
        assert outcomes == [TransactionRefused, MessageTooLarge, TransactionRefused]
        assert await bodies(store) == []

    async def test_a_key_with_another_body_takes_the_others_with_it(self, store: Store) -> None:
        await add(store, item(b"a", key="k"))
        again = [item(b"1"), item(b"b", key="k", tied=True)]
        assert await kinds(store, *again) == [TransactionRefused, KeyReused]
        within = [item(b"1", key="l"), item(b"2", key="l", tied=True)]
        assert await kinds(store, *within) == [TransactionRefused, KeyReused]
        assert await bodies(store) == [b"a"]

    async def test_what_was_stored_before_needs_no_room(self, store: Store) -> None:
        first = await add(store, *tied(b"1", b"2", keys=["k1", "k2"]))
        again = await add(store, *tied(b"1", b"2", b"3", keys=["k1", "k2", "k3"]))
        assert [answer.duplicate for answer in again] == [True, True, False]
        assert [answer.position for answer in again[:2]] == [answer.position for answer in first]
        assert await bodies(store) == [b"1", b"2", b"3"]

    async def test_a_transaction_may_be_large(self, store: Store) -> None:
        many = [b"%d" % number for number in range(1500)]
        answers = await store.append(tied(*many, retention=Retention()))
        assert not any(isinstance(answer, Refused) for answer in answers)
        assert await bodies(store) == many
