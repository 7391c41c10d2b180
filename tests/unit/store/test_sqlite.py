"""The SQLite engine's own promises: files, locks, failures, epochs."""

# ruff: noqa: ASYNC240 (a test has its loop to itself)

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from postroom.errors import OutcomeUnknown, StoreUnavailable
from postroom.identity import UserName
from postroom.position import START, LogKey
from postroom.store import file_of, sqlite_logs
from postroom.store.base import SHARED, Append, Confirm
from postroom.store.sqlite import SQLiteStore
from postroom.testing.contracts.log_store import INBOX, OUTBOX, RING, HandClock, add, bodies, item, stored

posix = pytest.mark.skipif(os.name != "posix", reason="signals and limits are POSIX's")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "x.db"


def at(path: Path, clock: HandClock | None = None) -> SQLiteStore:
    return SQLiteStore(f"sqlite:///{path}", clock=clock)


def script(path: Path, body: str) -> subprocess.Popen[str]:
    """A process which has `store`, open, and runs `body`."""
    head = f"""
    import asyncio, sys
    from postroom.errors import *
    from postroom.position import *
    from postroom.store.base import *
    from postroom.store.sqlite import SQLiteStore
    from postroom.testing.contracts.log_store import *

    async def main():
        async with SQLiteStore({f"sqlite:///{path}"!r}) as store:
    """
    text = textwrap.dedent(head) + textwrap.indent(textwrap.dedent(body), " " * 8) + "\nasyncio.run(main())\n"
    return subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)


# ── files ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:", "postroom-data/postroom.db"),
        ("sqlite:./x.db", "x.db"),
        ("sqlite:///relative/x.db", "relative/x.db"),
        ("sqlite:////absolute/x.db", "/absolute/x.db"),
    ],
)
def test_a_url_names_a_file(url: str, expected: str) -> None:
    assert file_of(url) == Path(expected)


@posix
async def test_only_its_owner_reads_the_file(path: Path) -> None:
    async with at(path) as store:
        await add(store, item())
        for name in ("x.db", "x.db-wal"):
            assert stat.S_IMODE((path.parent / name).stat().st_mode) == 0o600


async def test_a_close_leaves_one_whole_file(path: Path) -> None:
    async with at(path) as store:
        await add(store, item(b"kept"))
    assert not path.with_name("x.db-wal").exists()
    shutil.copy(path, path.with_name("copy.db"))
    async with at(path.with_name("copy.db")) as store:
        assert await bodies(store) == [b"kept"]


async def test_a_second_store_on_the_same_file_is_refused(path: Path) -> None:
    async with at(path) as store:
        with pytest.raises(StoreUnavailable, match="in use by another process"):
            await at(path).__aenter__()
        await add(store, item())
    async with at(path) as store:
        assert len(await bodies(store)) == 1


async def test_another_process_is_refused(path: Path) -> None:
    with script(path, "print('open', flush=True); await asyncio.sleep(60)") as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(StoreUnavailable, match="in use by another process"):
            await at(path).__aenter__()
        other.kill()
    async with at(path) as store:
        await add(store, item())


async def test_a_newer_schema_is_refused(path: Path) -> None:
    async with at(path):
        pass
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA user_version=99")
    connection.close()
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=r"newer Postroom .*99"):
            await at(path).__aenter__()


async def test_what_is_no_database_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("this is not a database" * 100)
    with pytest.raises(StoreUnavailable, match="cannot open"):
        await at(path).__aenter__()


async def test_a_closed_store_refuses(path: Path) -> None:
    async with at(path) as store:
        pass
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.append([item()])


# ── crashes and failures ──────────────────────────────────────────────────────────────────────────────


@posix
@pytest.mark.parametrize("after", [1, 40, 200])
async def test_what_was_acknowledged_survives_a_kill(path: Path, after: int) -> None:
    with script(
        path,
        """
        async def client(name):
            log = LogKey(name, "/queue/inbox")
            for n in range(100_000):
                (at,) = await add(store, item(b"%d" % n, log=log, key=str(n)))
                print(name, n, at.position.offset, flush=True)

        await asyncio.gather(*(client(f"user-{k}") for k in range(8)))
        """,
    ) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(after)]
        writer.send_signal(signal.SIGKILL)
        lines += [line for line in writer.stdout.readlines() if line.endswith("\n")]
    told: dict[str, list[int]] = {}
    for line in lines:
        name, _, offset = line.split()
        told.setdefault(name, []).append(int(offset))
    async with at(path) as store:
        for name, offsets in told.items():
            log = LogKey(UserName(name), "/queue/inbox")
            page = await store.read(log, START, 100_000, 1 << 30)
            assert [m.position.offset for m in page.messages][: len(offsets)] == offsets
            assert [m.number for m in page.messages] == [*range(1, len(page.messages) + 1)]
            assert {m.position.epoch for m in page.messages} == {1}
            (again,) = await add(store, item(b"0", log=log, key="0"))
            assert again.duplicate
            (new,) = await add(store, item(b"new", log=log))
            assert new.position.epoch == 1


@posix
async def test_a_full_disk_refuses_and_room_mends_it(path: Path) -> None:
    writer = script(
        path,
        """
        import resource, signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        told = [(await add(store, item(b"first")))[0]]
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
        refused = 0
        for n in range(500):
            try:
                told.append((await add(store, item(b"x" * 5_000)))[0])
            except OutcomeUnknown:
                raise
            except StoreUnavailable:
                refused += 1
        assert 10 < len(told) < 400, len(told)
        assert refused + len(told) == 501
        assert len(await everything(store)) == len(told), "what is stored can still be read"
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        told.append((await add(store, item(b"last")))[0])
        assert [m.position for m in await everything(store)] == [at.position for at in told]
        assert [m.number for m in await everything(store)] == [*range(1, len(told) + 1)]
        print("done", len(told))
        """,
    )
    out, _ = await asyncio.to_thread(writer.communicate, timeout=50)
    assert writer.returncode == 0
    async with at(path) as store:
        assert len(await bodies(store)) == int(out.split()[-1])


class Faults(apsw.VFS):
    """A disk that fails when told to."""

    def __init__(self) -> None:
        self.name = "faults"
        self.failing: set[str] = set()
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: Any) -> "FaultyFile":
        if "open" in self.failing:
            raise apsw.CantOpenError("no")
        return FaultyFile(self, name, flags)


class FaultyFile(apsw.VFSFile):
    def __init__(self, disk: Faults, name: Any, flags: Any) -> None:
        self._disk = disk
        super().__init__("", name, flags)

    def xSync(self, flags: Any) -> None:
        if "sync" in self._disk.failing:
            raise apsw.IOError("the disk did not take it")
        super().xSync(flags)

    def xWrite(self, data: Any, offset: Any) -> None:
        if "write" in self._disk.failing:
            raise apsw.FullError("no room")
        super().xWrite(data, offset)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    disk = Faults()
    open_plainly = apsw.Connection
    monkeypatch.setattr(apsw, "Connection", lambda name: open_plainly(name, vfs=disk.name))
    yield disk
    disk.failing.clear()
    disk.unregister()


async def test_after_a_failed_sync_the_outcome_is_not_known(path: Path, disk: Faults) -> None:
    async with at(path) as store:
        await add(store, item(b"1"))
        disk.failing.add("sync")
        with pytest.raises(OutcomeUnknown):
            await add(store, item(b"2", key="k"))
        with pytest.raises(StoreUnavailable):
            await add(store, item(b"3"))
        disk.failing.clear()
        await add(store, item(b"2", key="k"), item(b"4"))
        assert await bodies(store) == [b"1", b"2", b"4"]


async def test_a_disk_that_takes_nothing_stores_nothing(path: Path, disk: Faults) -> None:
    async with at(path) as store:
        (first,) = await add(store, item(b"1"))
        await store.cursor(INBOX, SHARED)
        disk.failing.add("write")
        for attempt in (
            add(store, item(b"2")),
            store.confirm([Confirm(INBOX, SHARED, first.position, 1)]),
            store.attempt(INBOX, SHARED, 5),
            store.trim(INBOX, first.position.offset),
        ):
            with pytest.raises(StoreUnavailable) as caught:
                await attempt
            assert not isinstance(caught.value, OutcomeUnknown)
        assert await bodies(store) == [b"1"]
        assert (await store.heads([INBOX]))[0].number == 1
        disk.failing.clear()
        assert (await store.cursor(INBOX, SHARED)).number == 0
        (second,) = await add(store, item(b"2"))
        assert (second.previous, second.number) == (first.position.offset, 2)


async def test_a_file_that_cannot_be_opened_again_is_tried_again(path: Path, disk: Faults) -> None:
    async with at(path) as store:
        await add(store, item(b"1"))
        disk.failing |= {"write", "open"}
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await add(store, item(b"2"))
            with pytest.raises(StoreUnavailable):
                await bodies(store)
        disk.failing.clear()
        await add(store, item(b"3"))
        assert await bodies(store) == [b"1", b"3"]


async def test_all_that_wait_learn_of_a_failure(path: Path, disk: Faults) -> None:
    async with at(path) as store:
        await add(store, item(b"1"))
        disk.failing.add("write")
        outcomes = await asyncio.gather(*(store.append([item()]) for _ in range(50)), return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {StoreUnavailable}
        disk.failing.clear()
        await add(store, item(b"2"))
        assert await bodies(store) == [b"1", b"2"]


async def test_one_that_cannot_be_stored_spoils_nothing_for_others(path: Path) -> None:
    async with at(path) as store:
        unwritable = item(b"x", headers={"a": "\ud800"})
        unreal: Append = item(b"x", at_least=1 << 70, log=OUTBOX)
        outcomes = await asyncio.gather(
            store.append([item(b"1")]),
            store.append([unwritable]),
            store.append([item(b"2")]),
            store.append([unreal]),
            store.append([item(b"3")]),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [list, StoreUnavailable, list, StoreUnavailable, list]
        assert await bodies(store) == [b"1", b"2", b"3"]
        assert await bodies(store, OUTBOX) == []
        await add(store, item(b"4", log=OUTBOX))


# ── epochs ────────────────────────────────────────────────────────────────────────────────────────────


async def epoch_of(path: Path) -> int:
    async with at(path) as store:
        outcome = stored((await store.append([item()]))[0])
        return outcome.position.epoch


async def test_the_epoch_stays_while_nothing_was_lost(path: Path) -> None:
    assert [await epoch_of(path) for _ in range(3)] == [1, 1, 1]


async def test_a_restored_backup_begins_an_epoch(path: Path) -> None:
    await epoch_of(path)
    backup = path.read_bytes()
    await epoch_of(path)
    path.write_bytes(backup)
    assert await epoch_of(path) == 2
    assert await epoch_of(path) == 2
    path.write_bytes(backup)
    assert await epoch_of(path) == 3


async def test_a_backup_of_the_same_run_begins_an_epoch(path: Path) -> None:
    async with at(path) as store:
        await add(store, item(b"1"))
        connection = apsw.Connection(str(path))
        copy = apsw.Connection(str(path.with_name("copy.db")))
        with copy.backup("main", connection, "main") as backup:
            backup.step()
        copy.close()
        connection.close()
        await add(store, item(b"2"))
    path.with_name("copy.db").replace(path)
    async with at(path) as store:
        (new,) = await add(store, item(b"3"))
        assert new.position.epoch == 2
        assert await bodies(store) == [b"1", b"3"]


async def test_without_its_neighbour_a_file_may_be_old(path: Path) -> None:
    await epoch_of(path)
    path.with_name("x.db.generation").unlink()
    assert await epoch_of(path) == 2


@pytest.mark.parametrize("nonsense", ["", "[]", '{"database": 1}', "\0"])
async def test_an_unreadable_neighbour_is_none(path: Path, nonsense: str) -> None:
    await epoch_of(path)
    path.with_name("x.db.generation").write_text(nonsense)
    assert await epoch_of(path) == 2


async def test_a_new_file_beside_an_old_neighbour_begins_an_epoch(path: Path) -> None:
    await epoch_of(path)
    path.unlink()
    assert await epoch_of(path) == 2


async def test_old_entries_keep_the_epoch_in_which_they_were_written(path: Path) -> None:
    async with at(path) as store:
        (first,) = await add(store, item(b"1"))
        await store.cursor(INBOX, SHARED)
    path.with_name("x.db.generation").unlink()
    async with at(path) as store:
        assert (await store.heads([INBOX]))[0].last == first.position
        (second,) = await add(store, item(b"2"))
        assert second.position > first.position
        assert second.previous == first.position.offset
        page = await store.read(INBOX, START, 10, 1000)
        assert [m.position.epoch for m in page.messages] == [1, 2]
        await store.confirm([Confirm(INBOX, SHARED, first.position, 1)])
        await store.trim(INBOX, second.position.offset)
    async with at(path) as store:
        assert (await store.heads([INBOX]))[0].last == second.position
        assert (await store.cursor(INBOX, SHARED)).confirmed == first.position


# ── memory ────────────────────────────────────────────────────────────────────────────────────────────


async def test_logs_that_memory_forgot_are_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_logs, "_MAX_STATES", 8)
    logs = [LogKey(UserName(f"user-{n}"), "/queue/inbox") for n in range(50)]
    async with at(path) as store:
        for round_ in range(1, 5):
            waiting = [store.append([item(b"x", log=log, retention=RING)]) for log in logs]
            sweeping = [store.sweep() for _ in range(3)]
            outcomes, _ = await asyncio.gather(asyncio.gather(*waiting), asyncio.gather(*sweeping))
            assert {stored(outcome).number for (outcome,) in outcomes} == {round_}
        assert {len(await bodies(store, log)) for log in logs} == {3}
