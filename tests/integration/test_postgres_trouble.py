"""PostgreSQL in trouble: killed, paused, cut off, restored, failed over. What was answered must hold."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.certificates import self_signed
from tests.support.deadline import DEADLINE
from tests.support.postgres import Postgres

from postroom.errors import LeaseLost, OutcomeUnknown, StoreUnavailable
from postroom.identity import NodeId, UserName
from postroom.position import Epoch, LogKey, Position
from postroom.store.base import Appended
from postroom.store.postgres import PostgresStore
from postroom.store.postgres_schema import SCHEMA_VERSION
from postroom.testing.contracts.log_store import INBOX, RING, SMALL, HandClock, add, bodies, everything, item
from postroom.testing.proxy import Proxy

pytestmark = pytest.mark.fault

BOB = UserName("bob")


@pytest.fixture
def proxy(own_postgres: Postgres) -> Iterator[Proxy]:
    with Proxy(("127.0.0.1", own_postgres.port)) as proxy:
        yield proxy


async def insist(store: PostgresStore, body: bytes, *, key: str | None = None) -> Appended:
    """Append until the store does it."""
    async with asyncio.timeout(3 * DEADLINE):
        while True:
            try:
                (at,) = await add(store, item(body, key=key))
                return at
            except StoreUnavailable:
                await asyncio.sleep(0.05)


# ── restarts ──────────────────────────────────────────────────────────────────────────────────────────


async def test_what_was_answered_survives_the_server_s_death(own_postgres: Postgres) -> None:
    async with PostgresStore(own_postgres.url(timeout="20")) as store:
        answered: list[Appended] = []
        for n in range(300):
            if n in (100, 200):
                await asyncio.to_thread(own_postgres.restart)
            answered += await add(store, item(b"%d" % n))
        found = await everything(store)
        assert [each.message.body for each in found] == [b"%d" % n for n in range(300)]
        assert [each.position for each in found] == [at.position for at in answered]


async def test_a_mere_restart_begins_no_epoch_for_who_saw_it(own_postgres: Postgres) -> None:
    async with PostgresStore(own_postgres.url(timeout="20")) as store:
        (before,) = await add(store, item())
        await asyncio.to_thread(own_postgres.restart)
        (after,) = await add(store, item())
        assert after.position.epoch == before.position.epoch
        assert after.previous == before.position.offset


async def test_after_a_restart_that_nobody_saw_an_epoch_begins(own_postgres: Postgres) -> None:
    async with PostgresStore(own_postgres.url()) as store:
        (before,) = await add(store, item())
    await asyncio.to_thread(own_postgres.restart)
    async with PostgresStore(own_postgres.url()) as store:
        (after,) = await add(store, item())
        assert after.position > before.position
        assert after.position.epoch > before.position.epoch


@pytest.mark.parametrize("open_meanwhile", [True, False])
async def test_a_restored_copy_begins_an_epoch(own_postgres: Postgres, open_meanwhile: bool) -> None:
    async with PostgresStore(own_postgres.url(timeout="20")) as store:
        (kept,) = await add(store, item(b"kept"))
        copy = await asyncio.to_thread(own_postgres.save)
        lost = await add(store, item(b"lost"), item(b"lost"))
        if open_meanwhile:
            await asyncio.to_thread(own_postgres.restore, copy)
            (after,) = await add(store, item(b"after"))
    if not open_meanwhile:
        await asyncio.to_thread(own_postgres.restore, copy)
        async with PostgresStore(own_postgres.url()) as store:
            (after,) = await add(store, item(b"after"))
    assert after.position.epoch > lost[-1].position.epoch
    assert (after.previous, after.number) == (kept.position.offset, 2)


async def test_a_batch_that_is_lost_begins_an_epoch_on_the_same_server(own_postgres: Postgres) -> None:
    """A fail-over behind a proxy's back may show no other sign."""
    async with PostgresStore(own_postgres.url()) as store:
        (before,) = await add(store, item())
        await asyncio.to_thread(own_postgres.query, "UPDATE postroom.writer SET batch = 0")
        (after,) = await add(store, item())
        assert after.position.epoch > before.position.epoch


async def test_a_writer_that_was_silent_for_long_has_lost_nothing(postgres_url: str) -> None:
    clock = HandClock()
    async with PostgresStore(postgres_url, clock=clock) as idle, PostgresStore(postgres_url, clock=clock) as busy:
        (before,) = await add(idle, item(b"before"))
        clock.turn(61 * 86_400)
        await busy.sweep()
        (after,) = await add(idle, item(b"after"))
        assert after.position.epoch == before.position.epoch


async def test_what_a_client_claims_to_know_begins_no_epoch(postgres_url: str) -> None:
    async with PostgresStore(postgres_url) as store:
        (before,) = await add(store, item(b"one"))
        page = await store.read(INBOX, Position(Epoch(1 << 70), 1 << 80), 10, 1000)
        assert [*page.messages] == []
        (after,) = await add(store, item(b"two"))
        assert after.position.epoch == before.position.epoch


async def test_a_standby_that_is_promoted_begins_an_epoch(own_postgres: Postgres) -> None:
    standby = await asyncio.to_thread(own_postgres.standby)
    try:
        hosts = f"127.0.0.1:{own_postgres.port},127.0.0.1:{standby.port}"
        url = f"postgresql://postroom@{hosts}/postgres?sslmode=disable&timeout=20"
        async with PostgresStore(url) as store:
            lease = await store.join(NodeId("one"), 60)
            await store.enter(lease, [BOB])
            (before,) = await add(store, item(b"before"))
            async with asyncio.timeout(DEADLINE):
                while not await asyncio.to_thread(standby.query, "SELECT 1 FROM pg_class WHERE relname = 'entry'"):
                    await asyncio.sleep(0.02)
                while not await asyncio.to_thread(standby.query, "SELECT 1 FROM postroom.entry"):
                    await asyncio.sleep(0.02)
            await asyncio.to_thread(own_postgres.kill)
            await asyncio.to_thread(standby.query, "SELECT pg_promote()")
            (after,) = await add(store, item(b"after"))
            assert after.position.epoch > before.position.epoch
            assert after.previous == before.position.offset
            assert await bodies(store) == [b"before", b"after"]
            with pytest.raises(LeaseLost):
                await store.renew(lease, 60)
    finally:
        await asyncio.to_thread(standby.close)


async def test_leases_and_entries_end_together_when_the_server_dies(own_postgres: Postgres) -> None:
    async with PostgresStore(own_postgres.url(timeout="20")) as store:
        lease = await store.join(NodeId("one"), 60)
        await store.enter(lease, [BOB])
        await asyncio.to_thread(own_postgres.restart)
        assert [*(await store.locate([BOB]))[BOB]] == []
        with pytest.raises(LeaseLost):
            await store.renew(lease, 60)
        again = await store.join(NodeId("one"), 60)
        assert again.incarnation > lease.incarnation


# ── the network ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_lost_reply_stores_nothing_twice(own_postgres: Postgres, proxy: Proxy) -> None:
    async with PostgresStore(own_postgres.url(port=proxy.port, timeout="20")) as store:
        ring = [item(b"ring", log=LogKey(BOB, "/queue/ring"), retention=RING) for _ in range(5)]
        small = [item(b"small", log=LogKey(BOB, "/queue/small"), retention=SMALL) for _ in range(5)]
        await add(store, item(b"first"))
        for n in range(10):
            # The server does it, and its answer is swallowed, then lost.
            await asyncio.to_thread(proxy.delay, 0.05)
            batch = [item(b"%d" % n, key=f"k{n}"), item(b"%d'" % n), *ring, *small]
            waiting = asyncio.ensure_future(store.append(batch))  # noqa: TID251
            await asyncio.sleep(0.08)
            await asyncio.to_thread(proxy.cut)
            await asyncio.to_thread(proxy.heal)
            keyed, plain, *_ = await waiting
            assert isinstance(keyed, Appended)
            assert isinstance(plain, Appended)
            assert not keyed.duplicate
            assert plain.previous == keyed.position.offset
        assert await bodies(store) == [b"first", *(b for n in range(10) for b in (b"%d" % n, b"%d'" % n))]
        assert (await store.heads([LogKey(BOB, "/queue/ring")]))[0].number == 50


async def test_what_arrives_late_is_refused(own_postgres: Postgres, proxy: Proxy) -> None:
    async with PostgresStore(own_postgres.url(port=proxy.port, timeout="1")) as store:
        await add(store, item(b"first"))
        await asyncio.to_thread(proxy.blackhole)
        with pytest.raises(OutcomeUnknown):
            await store.append([item(b"late")])
        # It is still under way, in the proxy.
        await asyncio.to_thread(proxy.heal)
        await insist(store, b"next")
        found = await bodies(store)
        assert found[0] == b"first"
        assert found[-1] == b"next"
        assert found.count(b"late") <= 1


async def test_a_paused_server_is_waited_for_then_refused(own_postgres: Postgres) -> None:
    async with PostgresStore(own_postgres.url(timeout="1")) as store:
        await add(store, item(b"before"))
        own_postgres.pause()
        try:
            with pytest.raises(OutcomeUnknown):
                await store.append([item(b"unknown")])
            with pytest.raises(StoreUnavailable):
                await store.heads([INBOX])
        finally:
            own_postgres.resume()
        await insist(store, b"after")
        found = await bodies(store)
        assert [found[0], found[-1]] == [b"before", b"after"]
        assert found.count(b"unknown") <= 1


async def test_many_writers_cut_off_at_random_lose_and_double_nothing(own_postgres: Postgres, proxy: Proxy) -> None:
    stores = [PostgresStore(own_postgres.url(port=proxy.port, timeout="20")) for _ in range(3)]
    sent: list[list[bytes]] = [[] for _ in stores]

    async def write(number: int, store: PostgresStore) -> None:
        for n in range(60):
            body = b"%d-%d" % (number, n)
            await insist(store, body)
            sent[number].append(body)

    async def cut() -> None:
        for _ in range(25):
            await asyncio.sleep(0.03)
            await asyncio.to_thread(proxy.cut)

    async with contextlib.AsyncExitStack() as opened:
        for store in stores:
            await opened.enter_async_context(store)
        await asyncio.gather(cut(), *(write(n, store) for n, store in enumerate(stores)))
    async with PostgresStore(own_postgres.url()) as store:
        found = await everything(store)
    assert sorted(each.message.body for each in found) == sorted(body for each in sent for body in each)
    assert [each.number for each in found] == [*range(1, 181)]
    for number in range(3):
        mine = [each.message.body for each in found if each.message.body.startswith(b"%d-" % number)]
        assert mine == sent[number]


# ── the schema ────────────────────────────────────────────────────────────────────────────────────────


async def test_many_nodes_make_the_schema_at_once(postgres_url: str) -> None:
    async def use(n: int) -> None:
        async with PostgresStore(postgres_url) as store:
            await add(store, item(b"%d" % n))

    await asyncio.gather(*(use(n) for n in range(6)))
    async with PostgresStore(postgres_url) as store:
        assert len(await everything(store)) == 6


async def test_a_newer_schema_is_refused(postgres: Postgres, postgres_url: str) -> None:
    async with PostgresStore(postgres_url):
        pass
    schema = postgres_url.partition("schema=")[2].partition("&")[0]
    await asyncio.to_thread(
        postgres.query, f"INSERT INTO {schema}.schema_version (version) VALUES ({SCHEMA_VERSION + 1})"
    )
    with pytest.raises(StoreUnavailable, match="newer Postroom"):
        await PostgresStore(postgres_url).__aenter__()


async def test_a_role_that_may_not_make_the_schema_is_told_what_it_takes(postgres: Postgres, postgres_url: str) -> None:
    await asyncio.to_thread(
        postgres.query,
        "DO $$ BEGIN CREATE ROLE nobody_special LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
    )
    url = postgres_url.replace("postroom@", "nobody_special@")
    with pytest.raises(StoreUnavailable, match="CREATE SCHEMA"):
        await PostgresStore(url).__aenter__()


async def test_a_role_without_privileges_of_its_own_will_do(postgres: Postgres, postgres_url: str) -> None:
    schema = postgres_url.partition("schema=")[2].partition("&")[0]
    for statement in (
        "DO $$ BEGIN CREATE ROLE plain LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
        f"CREATE SCHEMA {schema} AUTHORIZATION plain",
    ):
        await asyncio.to_thread(postgres.query, statement)
    async with PostgresStore(postgres_url.replace("postroom@", "plain@")) as store:
        (at,) = await add(store, item(b"mine"))
        assert at.position.epoch > 1
        await store.sweep()
        await store.enter(await store.join(NodeId("one"), 10), [BOB])


async def test_names_may_hold_anything(postgres_url: str) -> None:
    odd = LogKey(UserName("a\0b\\0" + "ü" * 5000), "/queue/" + "x" * 9000)
    async with PostgresStore(postgres_url) as store:
        (at,) = await add(store, item(log=odd, key="k\0" * 2000, sender="s\0"))
        assert (await store.heads([odd]))[0].last == at.position
        assert (await add(store, item(log=odd, key="k\0" * 2000, sender="s\0")))[0].duplicate
        await store.cursor(odd, "device\0" * 1000)


# ── TLS ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_tls_is_verified_where_the_url_says_so(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    with Postgres(tls=(certificate, key)) as server:
        base = f"postgresql://postroom@localhost:{server.port}/postgres?timeout=2"
        async with PostgresStore(f"{base}&sslmode=verify-full&sslrootcert={certificate}") as store:
            await add(store, item(b"secret"))
            ((encrypted,),) = await asyncio.to_thread(server.query, "SELECT count(*) FROM pg_stat_ssl WHERE ssl")
            assert encrypted > 0
        (tmp_path / "other").mkdir()
        other, _ = self_signed(tmp_path / "other")
        with pytest.raises(StoreUnavailable, match="certificate"):
            await PostgresStore(f"{base}&sslmode=verify-full&sslrootcert={other}").__aenter__()
