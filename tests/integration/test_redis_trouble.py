"""The Redis engine where something goes wrong: lost replies, restarts, fail-overs, slots that move."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import structlog
from redis.crc import key_slot
from tests.support.deadline import DEADLINE
from tests.support.topologies import Cluster, Sentinels
from tests.support.valkey import Valkey

from postroom.backplane.base import Subject
from postroom.backplane.redis import RedisBackplane
from postroom.channel import Retention
from postroom.errors import MailboxFull, OutcomeUnknown, StoreUnavailable, TransactionRefused
from postroom.identity import NodeId, UserName
from postroom.position import START, Head, LogKey, Position
from postroom.store.base import SHARED, Append, Appended, Confirm
from postroom.store.redis import RedisStore
from postroom.store.redis_servers import Script
from postroom.testing.contracts.log_store import EVERYTHING, INBOX, OUTBOX, add, bodies, everything, item

QUICK = Retention(seconds=100, confirmed_seconds=10)


class Wire:
    """Between a store and its server. `eat` counts down to the reply that gets lost, and its connection with it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.eaten = 0
        self._eat: bytes | None = None
        self._times = 0

    async def __aenter__(self) -> "Wire":
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in tuple(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def lead_to(self, server: Valkey) -> None:
        """New connections go to another server; those that there are stay."""
        self._port = server.port

    def eat(self, script: str, *, times: int = 1) -> None:
        """Lose the reply to the next so many calls that name `script`: they are done, and nobody hears of it."""
        self._eat, self._times = Script(script).sha, times

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        pair = {writer, far_writer}
        self._writers |= pair
        eats = asyncio.Event()
        with contextlib.suppress(OSError):
            await asyncio.gather(self._ask(reader, far_writer, eats), self._answer(far_reader, writer, eats))
        self._writers -= pair

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, eats: asyncio.Event) -> None:
        while data := await reader.read(65_536):
            if self._times and self._eat is not None and self._eat in data:
                self._times -= 1
                eats.set()
            writer.write(data)
        writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, eats: asyncio.Event) -> None:
        while data := await reader.read(65_536):
            if eats.is_set():
                self.eaten += 1
                break
            writer.write(data)
        writer.transport.abort()


@pytest.fixture
async def wire(valkey: Valkey) -> AsyncIterator[Wire]:
    async with Wire(valkey.port) as opened:
        yield opened


@pytest.fixture
def prefix(fresh_url: str) -> str:
    """A query that names a prefix of one's own."""
    return fresh_url.partition("?")[2]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Valkey]:
    """A server that may be hurt."""
    server = Valkey(tmp_path / "valkey", extra=["--repl-diskless-sync-delay", "0"])
    server.start()
    yield server
    server.close()


# ── the outcome is not known ──────────────────────────────────────────────────────────────────────────


async def test_an_append_whose_reply_got_lost_is_stored_once(wire: Wire, prefix: str) -> None:
    async with RedisStore(f"{wire.url}?{prefix}") as store:
        (before,) = await add(store, item(b"0"))
        wire.eat("append")
        first, second = await add(store, item(b"1"), item(b"2"))
        assert wire.eaten == 1
        assert [each.message.body for each in await everything(store)] == [b"0", b"1", b"2"]
        assert [each.position for each in await everything(store)] == [before.position, first.position, second.position]
        assert (first.previous, first.number, first.duplicate) == (before.position.offset, 2, False)
        assert (second.previous, second.number, second.duplicate) == (first.position.offset, 3, False)
        assert (await add(store, item(b"3")))[0].previous == second.position.offset


async def test_a_repeat_is_no_duplicate_to_its_sender(wire: Wire, prefix: str) -> None:
    async with RedisStore(f"{wire.url}?{prefix}") as store:
        one = await store.join(NodeId("one"), 10)
        await store.enter(one, [UserName("bob")])
        await add(store, item(b"known"))
        wire.eat("append", times=3)
        (first,) = await add(store, item(b"1", key="k"))
        assert wire.eaten == 3
        assert (first.duplicate, first.live, [*first.listed]) == (False, True, [one])
        (again,) = await add(store, item(b"1", key="k"))
        assert (again.duplicate, again.position) == (True, first.position)


async def test_a_repeat_keeps_the_order_and_the_bounds(wire: Wire, prefix: str) -> None:
    small = Retention(max_messages=3)
    async with RedisStore(f"{wire.url}?{prefix}") as store:
        await add(store, item(b"known"))
        wire.eat("append")
        batch = [item(b"%d" % n, log=log, retention=small) for n in range(4) for log in (INBOX, OUTBOX)]
        waiting = [store.append([each]) for each in batch]
        outcomes = [answer for (answer,) in await asyncio.gather(*waiting)]
        assert [isinstance(each, Appended) for each in outcomes] == [True, True, True, True, False, True, False, False]
        assert isinstance(outcomes[-1], MailboxFull)
        assert await bodies(store) == [b"known", b"0", b"1"]
        assert await bodies(store, OUTBOX) == [b"0", b"1", b"2"]


async def test_a_transaction_whose_reply_got_lost_is_stored_once_and_whole(wire: Wire, prefix: str) -> None:
    small = Retention(max_messages=3)
    async with RedisStore(f"{wire.url}?{prefix}") as store:
        await add(store, item(b"known", retention=small))
        wire.eat("append", times=2)
        # That it is stored already must not be taken for a mailbox that is full.
        batch = [item(b"%d" % n, retention=small, tied=n > 0) for n in range(2)]
        last = item(b"x", log=OUTBOX, retention=small, tied=True)
        outcomes = await store.append([*batch, last])
        assert wire.eaten == 2
        assert [type(outcome) for outcome in outcomes] == [Appended] * 3
        assert await bodies(store) == [b"known", b"0", b"1"]
        assert await bodies(store, OUTBOX) == [b"x"]
        wire.eat("append")
        refused = await store.append([item(b"2", retention=small), item(b"y", log=OUTBOX, retention=small, tied=True)])
        assert [type(outcome) for outcome in refused] == [MailboxFull, TransactionRefused]
        assert await bodies(store, OUTBOX) == [b"x"]


async def test_who_never_hears_an_answer_is_told_that_the_outcome_is_unknown(wire: Wire, prefix: str) -> None:
    async with RedisStore(f"{wire.url}?{prefix}&timeout=0.5") as store:
        await add(store, item(b"known"))
        wire.eat("append", times=1000)
        with pytest.raises(OutcomeUnknown):
            await store.append([item(b"1")])
        assert wire.eaten > 2
        wire.eat("append", times=0)
        await add(store, item(b"2"))
        assert await bodies(store) == [b"known", b"1", b"2"]


async def test_calls_that_may_be_made_again_are(wire: Wire, prefix: str) -> None:
    async with RedisStore(f"{wire.url}?{prefix}") as store:
        (at,) = await add(store, item(b"1"))
        await bodies(store)
        wire.eat("read")
        assert await bodies(store) == [b"1"]
        await store.cursor(INBOX, SHARED)
        wire.eat("cursors")
        await store.confirm([Confirm(INBOX, SHARED, at.position, 1)])
        assert (await store.cursor(INBOX, SHARED)).number == 1


async def test_a_server_that_pauses_stores_once(own: Valkey) -> None:
    async with RedisStore(f"{own.url}?timeout=4") as store:
        await add(store, item(b"0"))
        own.pause()
        waiting = asyncio.ensure_future(store.append([item(b"1"), item(b"2")]))  # noqa: TID251
        await asyncio.sleep(2.2)
        own.resume()
        await waiting
        assert await bodies(store) == [b"0", b"1", b"2"]


async def test_what_the_network_delivers_late_is_not_stored_twice(wire: Wire, prefix: str, valkey: Valkey) -> None:
    """The connection that a call got no answer on is closed by the server before the call is made again."""
    async with RedisStore(f"{wire.url}?{prefix}") as store:
        await add(store, item(b"0"))
        killed = _killed(valkey)
        wire.eat("append")
        await add(store, item(b"1"))
        assert _killed(valkey) == killed + 1


def _killed(valkey: Valkey) -> int:
    lines = valkey.info("commandstats").decode().splitlines()
    found = [line for line in lines if line.startswith("cmdstat_client|kill:")]
    return int(found[0].partition("calls=")[2].partition(",")[0]) if found else 0


# ── the server is away ────────────────────────────────────────────────────────────────────────────────


async def test_no_server_is_said_in_one_line(unused_tcp_port: int) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        async with RedisStore(f"redis://127.0.0.1:{unused_tcp_port}"):
            pass
    assert str(unused_tcp_port) in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_a_server_that_is_gone_has_stored_nothing(own: Valkey) -> None:
    async with RedisStore(f"{own.url}?timeout=0.5") as store:
        await add(store, item())
        own.kill()
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await store.append([item()])
        # The first may have been sent before the end was seen; the others cannot.
        with pytest.raises(StoreUnavailable) as caught:
            await store.append([item()])
        assert not isinstance(caught.value, OutcomeUnknown)
        with pytest.raises(StoreUnavailable):
            await store.read(INBOX, START, 1, 1)
        with pytest.raises(StoreUnavailable):
            await store.join(NodeId("one"), 10)
        own.start()
        await add(store, item())


async def test_a_restart_is_lived_through_and_begins_an_epoch(own: Valkey) -> None:
    async with RedisStore(own.url) as store:
        (first,) = await add(store, item(b"1"))
        own.restart()
        (second,) = await add(store, item(b"2"))
        assert second.position.epoch > first.position.epoch
        assert (second.previous, second.number) == (first.position.offset, 2)
        assert await bodies(store) == [b"1", b"2"]
        page = await store.read(INBOX, first.position, 10, EVERYTHING)
        assert [each.message.body for each in page.messages] == [b"2"]
        # Of a lost history: later than all of the old epoch, but not of the new one.
        lost = Position(first.position.epoch, second.position.offset + 10**9)
        page = await store.read(INBOX, lost, 10, EVERYTHING)
        assert [each.message.body for each in page.messages] == [b"2"]
        (third,) = await add(store, item(b"3"))
        assert third.position.epoch == second.position.epoch


async def test_an_epoch_is_above_all_that_a_node_has_seen(own: Valkey) -> None:
    async with RedisStore(own.url) as store:
        (first,) = await add(store, item())
        far = Position(type(first.position.epoch)(first.position.epoch + 10**6), 5)
        await store.read(INBOX, far, 1, 1)
        own.restart()
        (second,) = await add(store, item())
        assert second.position.epoch >= far.epoch


async def test_replicas_that_are_asked_for_must_be_there(own: Valkey, tmp_path: Path) -> None:
    async with RedisStore(f"{own.url}?wait-replicas=1&wait-timeout=0.1&timeout=1") as store:
        with pytest.raises(OutcomeUnknown, match="0 of 1 replicas"):
            await store.append([item(b"1")])
        replica = Valkey(tmp_path / "replica", extra=["--replicaof", f"127.0.0.1 {own.port}"])
        replica.start()
        try:
            async with asyncio.timeout(10):
                while b"state=online" not in own.info("replication"):
                    await asyncio.sleep(0.05)
            await add(store, item(b"2"))
            assert await bodies(store) == [b"1", b"2"]
        finally:
            replica.close()


async def test_where_memory_is_short_what_is_there_can_be_read(own: Valkey) -> None:
    async with RedisStore(own.url) as store:
        (at,) = await add(store, item(b"1"))
        own.command("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(StoreUnavailable, match="memory") as caught:
            await store.append([item(b"2")])
        assert not isinstance(caught.value, OutcomeUnknown)
        assert await bodies(store) == [b"1"]
        await store.confirm([Confirm(INBOX, SHARED, at.position, 1)])
        await store.join(NodeId("one"), 10)
        await store.sweep()


# ── the primary becomes a replica, behind one address ─────────────────────────────────────────────────────


@pytest.fixture
def heir(own: Valkey, tmp_path: Path) -> Iterator[Valkey]:
    """A replica of `own`."""
    server = Valkey(tmp_path / "heir", extra=["--replicaof", f"127.0.0.1 {own.port}"])
    server.start()
    server.wait_linked()
    yield server
    server.close()


def _promote(heir: Valkey, old: Valkey, wire: Wire) -> None:
    """`heir` is the primary now, and `wire` leads there; `old` is a replica that hears nothing, and cuts nobody off."""
    heir.command("REPLICAOF", "NO", "ONE")
    wire.lead_to(heir)
    old.command("REPLICAOF", "127.0.0.1", "1")


async def test_the_store_leaves_a_primary_that_became_a_replica(own: Valkey, heir: Valkey) -> None:
    """As a managed server fails over: its address leads to another one, and the old one keeps its connections."""
    async with Wire(own.port) as wire, RedisStore(wire.url) as store:
        (first,) = await add(store, item(b"1"))
        await asyncio.gather(*(bodies(store) for _ in range(8)))
        await asyncio.to_thread(heir.wait_linked)
        _promote(heir, own, wire)
        (second,) = await add(store, item(b"2"))
        assert second.position > first.position
        # Not one of the connections still leads to the old one, which would answer with what was.
        assert await asyncio.gather(*(bodies(store) for _ in range(8))) == [[b"1", b"2"]] * 8


async def test_the_backplane_leaves_a_primary_that_became_a_replica(own: Valkey, heir: Valkey) -> None:
    async with Wire(own.port) as wire, asyncio.timeout(3 * DEADLINE), asyncio.TaskGroup() as tasks:
        moved, heard = asyncio.Event(), asyncio.get_running_loop().create_future()
        one, other = RedisBackplane(wire.url), RedisBackplane(heir.url)
        running = [
            tasks.create_task(one.run(lambda subject, payload: None, moved.set)),
            tasks.create_task(other.run(lambda subject, payload: heard.set_result(payload), lambda: None)),
        ]
        await one.subscribe([Subject("here")])
        _promote(heir, own, wire)
        await other.subscribe([Subject("there")])
        await moved.wait()
        await one.publish([(Subject("there"), b"x")])
        assert await heard == b"x"
        for task in running:
            task.cancel()


async def test_databases_of_one_server_hear_nothing_of_one_another(valkey: Valkey, prefix: str) -> None:
    """Keys have a database, channels have none."""
    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as tasks:
        heard = asyncio.get_running_loop().create_future()
        one, two = (RedisBackplane(f"{valkey.url}/{number}?{prefix}") for number in (0, 1))
        running = [
            tasks.create_task(one.run(lambda subject, payload: heard.set_result(payload), lambda: None)),
            tasks.create_task(two.run(lambda subject, payload: None, lambda: None)),
        ]
        await one.subscribe([Subject("all")])
        await two.subscribe([Subject("all")])
        await two.publish([(Subject("all"), b"of the other")])
        await one.publish([(Subject("all"), b"of one's own")])
        assert await heard == b"of one's own"
        for task in running:
            task.cancel()


async def test_settings_that_lose_messages_are_warned_of(tmp_path: Path) -> None:
    server = Valkey(tmp_path / "v", appendonly=False, extra=["--maxmemory-policy", "allkeys-lru"])
    server.start()
    try:
        with structlog.testing.capture_logs() as logs:
            async with RedisStore(server.url):
                pass
    finally:
        server.close()
    said = " ".join(entry["event"] for entry in logs if entry["log_level"] == "warning")
    assert "noeviction" in said
    assert "appendonly" in said


async def test_a_user_with_few_rights_will_do(own: Valkey) -> None:
    rights = "+@read +@write +@scripting +@connection +info +time +wait -@dangerous +info"
    own.command("ACL", "SETUSER", "postroom", "on", ">secret", "~postroom:*", *rights.split())
    url = own.url.replace("//", "//postroom:secret@")
    async with RedisStore(url) as store:
        await add(store, item(b"1", key="k"))
        assert await bodies(store) == [b"1"]
        await store.sweep()
    with pytest.raises(StoreUnavailable, match="username-password"):
        async with RedisStore(own.url.replace("//", "//postroom:wrong@")):
            pass


# ── what the server does by itself ────────────────────────────────────────────────────────────────────


async def test_the_server_forgets_logs_by_itself(valkey: Valkey, fresh_url: str, prefix: str) -> None:
    key = f"{prefix.partition('=')[2]}:{{u:bob}}:l:/queue/inbox"
    async with RedisStore(fresh_url) as store:
        (at,) = await add(store, item(retention=QUICK))
        assert 100_000 <= valkey.command("PTTL", key) <= 125_000
        await store.cursor(INBOX, SHARED)
        await store.confirm([Confirm(INBOX, SHARED, at.position, 1)])
        assert 60_000 <= valkey.command("PTTL", key) <= 70_000
        await store.cursor(INBOX, "phone")
        assert 100_000 <= valkey.command("PTTL", key) <= 125_000
        await store.confirm([Confirm(INBOX, "phone", at.position, 1)])
        assert 60_000 <= valkey.command("PTTL", key) <= 70_000
        await add(store, item(retention=QUICK))
        assert 100_000 <= valkey.command("PTTL", key) <= 125_000
        assert valkey.command("PTTL", key.replace(":l:", ":h:")) > 29 * 86_400_000


async def test_a_log_that_the_server_forgot_goes_on_counting(valkey: Valkey, fresh_url: str, prefix: str) -> None:
    key = f"{prefix.partition('=')[2]}:{{u:bob}}:l:/queue/inbox"
    async with RedisStore(fresh_url) as store:
        *_, last = await add(store, *(item() for _ in range(3)))
        valkey.command("DEL", key)
        assert await store.heads([INBOX]) == [Head(last.position, 3, last.position.offset, 3)]
        assert (await store.read(INBOX, START, 10, EVERYTHING)).head.floor_number == 3
        assert (await store.cursor(INBOX, "phone")).number == 3
        (after,) = await add(store, item(b"4"))
        assert (after.previous, after.number) == (last.position.offset, 4)
        (found,) = await everything(store)
        assert (found.previous, found.number) == (last.position.offset, 4)


async def test_a_log_whose_head_is_gone_begins_again_behind_its_entries(
    valkey: Valkey, fresh_url: str, prefix: str
) -> None:
    async with RedisStore(fresh_url) as store:
        *_, last = await add(store, item(b"1"), item(b"2"))
        valkey.command("DEL", f"{prefix.partition('=')[2]}:{{u:bob}}:h:/queue/inbox")
        assert await bodies(store) == [b"1", b"2"]
        (after,) = await add(store, item(b"3"))
        assert (after.position > last.position, after.previous, after.number) == (True, last.position.offset, 3)
        await store.trim(INBOX, last.position.offset)
        assert await bodies(store) == [b"3"]


async def test_a_key_that_is_not_ours_stops_nobody_else(valkey: Valkey, fresh_url: str, prefix: str) -> None:
    valkey.command("SET", f"{prefix.partition('=')[2]}:{{u:eve}}:l:/queue/inbox", "not a list")
    spoilt = LogKey(UserName("eve"), "/queue/inbox")
    async with RedisStore(fresh_url) as store:
        good = [store.append([item(b"%d" % n)]) for n in range(3)]
        bad = store.append([item(log=spoilt)])
        *stored, error = await asyncio.gather(*good, bad, return_exceptions=True)
        assert isinstance(error, StoreUnavailable)
        assert not isinstance(error, OutcomeUnknown)
        assert len(stored) == 3
        assert await bodies(store) == [b"0", b"1", b"2"]


async def test_entries_of_dead_nodes_are_swept(fresh_url: str) -> None:
    users = [UserName(f"user-{n}") for n in range(50)]
    async with RedisStore(fresh_url) as store:
        dead, live = await store.join(NodeId("one"), 10), await store.join(NodeId("two"), 10)
        await store.enter(dead, users)
        await store.enter(live, users[:10])
        await store.retire(dead)
        for _ in range(3):
            await store.sweep()
        found = await store.locate(users)
        assert [[*found[user]] for user in users] == [[live]] * 10 + [[]] * 40


@pytest.mark.parametrize(
    "name", ["a b", "{u:x}", "}{", "{}", "ä", "用户", "a\nb", "a:b", "a/b", "%7D", "*", "[a]", "\\", "'\"", "😀"]
)
async def test_users_and_logs_may_have_odd_names(fresh_url: str, name: str) -> None:
    log, other = LogKey(UserName(name), f"/queue/{name}"), LogKey(UserName("x" + name), f"/queue/{name}")
    topic = LogKey(None, f"/topic/{name}")
    async with RedisStore(fresh_url) as store:
        for each in (log, other, topic):
            sender = name
            (at,) = await add(store, item(name.encode(), log=each, sender=sender, headers={name: name}, key=name))
            assert (at.number, at.duplicate) == (1, False)
            (found,) = await everything(store, each)
            assert (found.message.sender, found.message.headers, found.message.destination.name) == (
                sender,
                {name: name},
                each.name,
            )
            await store.confirm([Confirm(each, name, at.position, 1)])
            assert (await store.cursor(each, name)).number == 1
            assert await store.lease(each, name, name, 10)
            assert not await store.lease(each, name, "other", 10)
        assert await store.sweep() == 0


# ── Sentinel ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.timeout(120)
async def test_a_fail_over_by_sentinel_is_lived_through(tmp_path: Path) -> None:
    watched = Sentinels(tmp_path / "s")
    watched.start()
    try:
        async with RedisStore(f"{watched.url}?timeout=30&wait-replicas=1") as store:
            (first,) = await add(store, item(b"1"))
            await store.cursor(INBOX, SHARED)
        async with RedisStore(f"{watched.url}?timeout=30") as store:
            await add(store, item(b"2"))
            await store.read(INBOX, START, 10, EVERYTHING)
            old = watched.kill_primary()
            (third,) = await add(store, item(b"3"))
            assert watched.wait_for_failover(old) is not old
            assert third.position.epoch > first.position.epoch
            assert third.position.offset > first.position.offset
            assert {b"1", b"3"} <= {*await bodies(store)}
            assert await store.join(NodeId("one"), 10)
    finally:
        watched.close()


# ── Cluster ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    servers = Cluster(tmp_path_factory.mktemp("cluster"))
    servers.start()
    yield servers
    servers.close()


@pytest.fixture
def cluster_url(cluster: Cluster, prefix: str) -> str:
    return f"{cluster.url}?{prefix}"


def crowd(count: int, body: bytes = b"x") -> list[Append]:
    return [item(body, log=LogKey(UserName(f"user-{n}"), "/queue/inbox")) for n in range(count)]


async def test_a_batch_may_be_for_every_server_of_a_cluster(cluster_url: str) -> None:
    batch = crowd(600)
    async with RedisStore(cluster_url) as store:
        answers = await add(store, *batch, *batch)
        assert [each.number for each in answers] == [1] * 600 + [2] * 600
        heads = await store.heads([each.log for each in batch])
        assert [head.last for head in heads] == [each.position for each in answers[600:]]
        await store.confirm(
            [Confirm(a.log, SHARED, at.position, 2) for a, at in zip(batch, answers[600:], strict=True)]
        )
        cursors = await asyncio.gather(*(store.cursor(each.log, SHARED) for each in batch))
        assert {cursor.number for cursor in cursors} == {2}


def _moved(cluster: Cluster, slot: int) -> tuple[Valkey, Valkey, Callable[[], None], Callable[[], None]]:
    """Where a slot is and where it goes; begins and ends the move."""
    primaries = [server for server in cluster.servers if b"role:master" in server.info("replication")]
    source = next(
        server
        for server in primaries
        for first, last, primary, *_ in server.raw("CLUSTER", "SLOTS")
        if first <= slot <= last and int(primary[1]) == server.port
    )
    target = next(server for server in primaries if server is not source)
    ids = {server: server.raw("CLUSTER", "MYID") for server in (source, target)}

    def begin() -> None:
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])

    def end() -> None:
        while keys := source.raw("CLUSTER", "GETKEYSINSLOT", slot, 100):
            source.raw("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        for server in (target, source, *(each for each in primaries if each not in (source, target))):
            server.command("CLUSTER", "SETSLOT", slot, "NODE", ids[target])

    return source, target, begin, end


async def test_a_slot_may_move_away_under_a_batch(cluster: Cluster, cluster_url: str, prefix: str) -> None:
    batch = crowd(100)
    slot = key_slot(b"{u:user-7}")
    _, target, begin, end = _moved(cluster, slot)
    async with RedisStore(cluster_url) as store:
        await add(store, *batch)
        begin()
        # What the slot's old owner still has it serves; what is new there waits for the end of the move.
        fresh = item(b"y", log=LogKey(UserName("user-7"), "/queue/other"))
        waiting = asyncio.ensure_future(store.append([*crowd(100, b"y"), fresh]))  # noqa: TID251
        await asyncio.sleep(0.3)
        assert not waiting.done()
        end()
        answers = await waiting
        assert all(isinstance(each, Appended) for each in answers)
        for each in batch:
            assert await bodies(store, each.log) == [b"x", b"y"]
        assert await bodies(store, fresh.log) == [b"y"]
        assert target.raw("EXISTS", f"{prefix.partition('=')[2]}:{{u:user-7}}:l:/queue/inbox") == 1
        assert [*(await store.locate([UserName("user-7")])).values()] == [()]
        assert await store.sweep() == 0


@pytest.mark.timeout(120)
async def test_a_fail_over_in_a_cluster_is_lived_through(tmp_path: Path) -> None:
    servers = Cluster(tmp_path / "c")
    servers.start()
    try:
        batch = crowd(100)
        async with RedisStore(f"{servers.url}?timeout=8&wait-replicas=1") as store:
            before = await add(store, *batch)
            servers.servers[1].kill()
            answers = await asyncio.gather(*(store.append([each]) for each in crowd(100, b"y")), return_exceptions=True)
            # One replica of three is a primary now and has none of its own: it cannot say that others have it.
            known = [answer for answer in answers if not isinstance(answer, BaseException)]
            assert 40 < len(known) < 90
        async with RedisStore(f"{servers.url}?timeout=30") as store:
            after = await add(store, *crowd(100, b"z"))
            moved = [b.position.epoch != a.position.epoch for b, a in zip(before, after, strict=True)]
            assert 10 < sum(moved) < 60
            for each, b, a in zip(batch, before, after, strict=True):
                assert a.position > b.position
                assert await bodies(store, each.log) == [b"x", b"y", b"z"]
    finally:
        servers.close()
