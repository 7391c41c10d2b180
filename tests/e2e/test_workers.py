"""`postroom serve --workers`: processes that share a port, what becomes of them, and what their clients see."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import websockets
from tests.support.client import StompClient, WebSocketPipe
from tests.support.deadline import DEADLINE, SCALE
from tests.support.fallback import Fallback
from tests.support.server import free_port
from tests.support.tcp import TcpPipe
from tests.support.workers import InATerminal, Workers, gone

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(90 * SCALE)]

FIRST, SECOND = "node-1-1", "node-1-2"
QUICK = "drain-seconds = 0.2\n"

DIES = """
import os
import sys
from pathlib import Path

from postroom import Postroom

if Path("dies").exists() and sys.argv[-1] == "node-1-2":
    os._exit(3)
app = Postroom()
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Workers]]:
    started: list[Workers] = []

    def begin(**how: object) -> Workers:
        workers = Workers(tmp_path, **{"config": QUICK, **how})  # type: ignore[arg-type]
        started.append(workers)
        workers.start()
        return workers

    yield begin
    for each in started:
        each.close()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """Two workers for all tests that do not hurt them; STOMP over TCP too."""
    port = free_port()
    workers = Workers(tmp_path_factory.mktemp("pair"), config=QUICK, options=["--stomp-port", str(port)])
    workers.stomp_port = port  # type: ignore[attr-defined]
    workers.start()
    yield workers
    workers.close()


async def test_users_of_two_workers_talk_and_who_was_away_gets_the_rest(pair: Workers) -> None:
    async with await pair.client_at(FIRST, "ann") as ann:
        async with await pair.client_at(SECOND, "ben") as ben:
            await ben.subscribe("/user/queue/x")
            await ann.subscribe("/user/queue/x")
            await ann.send("/user/ben/queue/x", "hello")
            assert (await ben.message()).text == "hello"
            await ben.confirmed()
            await ben.send("/user/ann/queue/x", "hello too")
            assert (await ann.message()).text == "hello too"
        await ann.send("/user/ben/queue/x", "are you there?")
        async with await pair.client_at(FIRST, "ben") as ben:
            await ben.subscribe("/user/queue/x")
            assert (await ben.message()).text == "are you there?"


async def test_topics_reach_every_worker(pair: Workers) -> None:
    async with await pair.client_at(FIRST, "t-1") as one, await pair.client_at(SECOND, "t-2") as two:
        await one.subscribe("/topic/news")
        await two.subscribe("/topic/news")
        await one.send("/topic/news", "extra")
        assert (await one.message()).text == (await two.message()).text == "extra"


async def test_the_port_of_stomp_over_tcp_is_shared_too(pair: Workers) -> None:
    met: set[str] = set()
    async with asyncio.timeout(2 * DEADLINE):
        while met != {f"postroom/{FIRST}", f"postroom/{SECOND}"}:
            port: int = pair.stomp_port  # type: ignore[attr-defined]
            pipe = TcpPipe(*await asyncio.open_connection("127.0.0.1", port))
            async with await StompClient(pipe).introduced("tcp") as client:
                met.add(client.connected.headers["server"])


async def test_whoever_is_asked_answers_for_all(pair: Workers) -> None:
    def sessions() -> dict[str, float]:
        return {name: each["sessions"] for name, each in pair.by_worker().items()}

    await asyncio.to_thread(pair.until, lambda: sessions() == {FIRST: 0.0, SECOND: 0.0})  # those of other tests
    async with await pair.client_at(FIRST, "m-1"), await pair.client_at(SECOND, "m-2"):
        for _ in range(6):  # whichever worker it is
            await asyncio.to_thread(pair.until, lambda: sessions() == {FIRST: 1.0, SECOND: 1.0})
            await asyncio.to_thread(pair.until, lambda: pair.reasons() == {FIRST: [], SECOND: []})


@pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "polling"])
def test_sockjs_over_http_meets_any_worker(pair: Workers, streaming: bool) -> None:
    user = f"fallback-{streaming}"
    with Fallback(pair.port, streaming=streaming) as client, Fallback(pair.port) as sender:
        client.open(user)
        client.subscribe("/user/queue/x")
        sender.open("sender")
        for number in range(8):  # each in a request of its own, at whichever worker takes it
            sender.say("SEND", {"destination": f"/user/{user}/queue/x"}, str(number).encode())
        assert [client.frame().text for _ in range(8)] == [str(number) for number in range(8)]


def test_logs_name_the_worker(pair: Workers) -> None:
    assert f"worker={FIRST}" in pair.output()
    assert f"worker={SECOND}" in pair.output()


async def test_a_worker_that_is_killed_comes_back_and_loses_nothing(start: Callable[..., Workers]) -> None:
    workers = await asyncio.to_thread(start)
    async with await workers.client_at(FIRST, "ann") as ann, await workers.client_at(SECOND, "ben") as ben:
        await ben.subscribe("/user/queue/x", ack="client")
        await ann.send("/user/ben/queue/x", "one")
        assert (await ben.message()).text == "one"
        workers.workers()[SECOND].kill()
        await ben.ended()
        await ann.send("/user/ben/queue/x", "two")
        async with await StompClient.connect(workers, "ben") as again:
            await again.subscribe("/user/queue/x")
            first, second = await again.messages(2)
            assert (first.text, first.headers.get("redelivered"), second.text) == ("one", "true", "two")
            await again.confirmed()
        async with await workers.client_at(SECOND, "ben") as back:
            await back.subscribe("/user/queue/x")
            await ann.send("/user/ben/queue/x", "three")
            assert (await back.message()).text == "three"
    assert f"{SECOND} was ended by SIGKILL; it is started again" in workers.output()


async def test_a_worker_that_dies_at_once_is_given_more_and_more_time(
    start: Callable[..., Workers], tmp_path: Path
) -> None:
    (tmp_path / "service.py").write_text(DIES, encoding="utf-8")
    workers = await asyncio.to_thread(start, application="service:app")
    (tmp_path / "dies").touch()

    def pauses() -> list[float]:
        said = [line for line in workers.output(10_000).splitlines() if f"{SECOND} ended with" in line]
        assert all("exit code 3; it is started again" in line for line in said)
        return [float(line.partition("pause_seconds=")[2].split()[0]) for line in said]

    workers.workers()[SECOND].kill()
    await asyncio.to_thread(workers.until, lambda: len(pauses()) >= 3)
    found = pauses()
    assert found[0] < found[1] < found[2]
    assert workers.reasons()[SECOND] == ["it does not answer"]
    assert f'postroom_worker_up{{worker="{SECOND}"}} 0.0' in workers.get("/metrics")
    async with await StompClient.connect(workers, "cleo") as cleo:  # the others serve
        await cleo.subscribe("/user/queue/x")
        await cleo.send("/user/cleo/queue/x", "still there")
        assert (await cleo.message()).text == "still there"
    (tmp_path / "dies").unlink()
    await asyncio.to_thread(workers.until, lambda: not any(workers.reasons().values()))


async def test_an_embedded_valkey_that_is_killed_comes_back_with_what_it_had(start: Callable[..., Workers]) -> None:
    workers = await asyncio.to_thread(start, config=QUICK + "[cluster]\nheartbeat-seconds = 0.5\n")
    async with await workers.client_at(FIRST, "ann") as ann, await workers.client_at(SECOND, "ben") as ben:
        await ann.send("/user/ben/queue/x", "before")
        workers.engine().kill()
        await asyncio.to_thread(workers.until, lambda: "Valkey was ended by SIGKILL" in workers.output())
        await asyncio.to_thread(workers.until, lambda: not any(workers.reasons().values()))
        await ben.subscribe("/user/queue/x")
        assert (await ben.message()).text == "before"
        await ann.send("/user/ben/queue/x", "after")
        assert (await ben.message()).text == "after"


async def test_sigterm_drains_all_and_the_next_start_has_the_messages(start: Callable[..., Workers]) -> None:
    workers = await asyncio.to_thread(start)
    family = workers.family()
    assert len(family) == 3
    async with await workers.client_at(FIRST, "ann") as ann, await workers.client_at(SECOND, "ben") as ben:
        await ann.send("/user/cleo/queue/x", "kept")
        workers.process.send_signal(signal.SIGTERM)
        assert await ann.ended() == 1012
        assert await ben.ended() == 1012
        assert await asyncio.to_thread(workers.process.wait, 3 * DEADLINE) == 0
    gone(family)
    assert "Traceback" not in workers.output()
    await asyncio.to_thread(workers.start)
    async with await StompClient.connect(workers, "cleo") as cleo:
        await cleo.subscribe("/user/queue/x")
        assert (await cleo.message()).text == "kept"


async def test_nothing_outlives_a_keeper_that_is_killed(start: Callable[..., Workers]) -> None:
    workers = await asyncio.to_thread(start)
    family = workers.family()
    workers.kill()
    gone(family)
    await asyncio.to_thread(workers.start)


async def test_sighup_starts_the_workers_anew_one_after_the_other(start: Callable[..., Workers]) -> None:
    workers = await asyncio.to_thread(start)
    before = workers.workers()
    assert list(before) == [FIRST, SECOND]
    settings = workers.folder / "postroom.toml"
    settings.write_text("drain-seconds = much\n", encoding="utf-8")
    workers.process.send_signal(signal.SIGHUP)
    await asyncio.to_thread(workers.until, lambda: "the workers stay as they are" in workers.output())
    assert workers.workers() == before
    settings.write_text(QUICK, encoding="utf-8")
    async with await workers.client_at(FIRST, "ann") as ann, await workers.client_at(SECOND, "ben") as ben:
        workers.process.send_signal(signal.SIGHUP)
        assert await ann.ended() == 1012
        async with await StompClient.connect(workers, "ann") as moved:
            await moved.send("/user/ben/queue/x", "still there")
        assert await ben.ended() == 1012
    await asyncio.to_thread(workers.until, lambda: "all workers were started anew" in workers.output())
    after = workers.workers()
    assert list(after) == [FIRST, SECOND]
    assert not {*after.values()} & {*before.values()}


class AtASocket(Workers):
    """Two workers at the Unix socket `path`."""

    def __init__(self, folder: Path, path: Path, *, config: str, store: str) -> None:
        super().__init__(folder, config=config, store=store, options=["--unix-socket", str(path)])
        self._path = path

    def get(self, path: str) -> str:
        with socket.socket(socket.AF_UNIX) as pipe:
            pipe.connect(str(self._path))
            pipe.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            with pipe.makefile("rb") as answer:
                return answer.read().decode().partition("\r\n\r\n")[2]


async def test_clients_at_a_unix_socket_meet_every_worker(tmp_path: Path, fresh_url: str) -> None:
    path = tmp_path / "http.sock"
    workers = AtASocket(tmp_path, path, config=QUICK, store=fresh_url)
    try:
        await asyncio.to_thread(workers.start)
        assert len(workers.family()) == 2, "no Valkey is embedded where a store is named"
        met: dict[str, StompClient] = {}
        async with asyncio.timeout(2 * DEADLINE):
            while len(met) < 2:
                pipe = WebSocketPipe(await websockets.unix_connect(str(path), "ws://x/ws", compression=None))
                client = await StompClient(pipe).introduced("ann")
                met.setdefault(client.connected.headers["server"], client)
        one, two = met.values()
        await two.subscribe("/topic/x")
        await one.send("/topic/x", "hello")
        assert (await two.message()).text == "hello"
        assert await asyncio.to_thread(workers.stop) == 0
        assert await one.ended() == await two.ended() == 1012
    finally:
        workers.close()


async def test_an_embedded_valkey_carries_messages_beside_another_store(
    start: Callable[..., Workers], fresh_url: str
) -> None:
    workers = await asyncio.to_thread(start, store=fresh_url, options=["--backplane", "embedded:"])
    assert "valkey" in workers.engine().name()
    async with await workers.client_at(FIRST, "ann") as ann, await workers.client_at(SECOND, "ben") as ben:
        await ben.subscribe("/topic/x")
        await ann.send("/topic/x", "hello")
        assert (await ben.message()).text == "hello"


@pytest.mark.parametrize("times", [1, 2])
async def test_ctrl_c_in_a_terminal_drains_all_and_a_second_one_does_not_wait(
    tmp_path: Path, fresh_url: str, times: int
) -> None:
    drain = "drain-seconds = 0.2\n" if times == 1 else "drain-seconds = 3600\n"
    workers = InATerminal(tmp_path, config=drain, store=fresh_url)
    try:
        await asyncio.to_thread(workers.start)
        family = workers.family()
        clients = [await workers.client_at(name, name) for name in (FIRST, FIRST, SECOND, SECOND)]
        workers.press_ctrl_c()
        if times == 2:
            await asyncio.to_thread(workers.until, lambda: workers.output().count("draining") == 2)
            workers.press_ctrl_c()
        codes = [await client.ended() for client in clients]
        assert await asyncio.to_thread(workers.process.wait, 3 * DEADLINE) == 0
        assert (codes == [1012] * 4) is (times == 1)
        gone(family)
        assert "Traceback" not in workers.output(10_000)
    finally:
        workers.close()


# ── what cannot work is said in one line ──────────────────────────────────────────────────────────────


def refused(folder: Path, *options: str, config: str = "") -> tuple[int, list[str]]:
    """The exit status of `postroom serve --workers 2`, and what it said."""
    (folder / "postroom.toml").write_text(config, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "postroom", "serve", "--workers", "2", "--port", str(free_port()), *options],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")},
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE,
        check=False,
    )
    return done.returncode, [line for line in done.stderr.splitlines() if line.startswith("postroom: ")]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--store", "sqlite:///x.db"],
            "store: sqlite: is for one process, and 2 workers are several: leave store out",
        ),
        (["--store", "memory://x"], "store: memory: is for one process"),
        (["--backplane", "memory:"], "backplane: memory: is for one process"),
        (["--backplane", "embedded:///elsewhere"], "store and backplane: embedded: is one engine"),
        (["nothing.at:all"], "'nothing.at:all': No module named 'nothing'"),
    ],
)
def test_what_workers_cannot_share_is_refused(tmp_path: Path, options: list[str], said: str) -> None:
    code, lines = refused(tmp_path, "--dev", *options)
    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith(f"postroom: {said}")


def test_messages_of_one_process_are_not_left_behind_unseen(tmp_path: Path) -> None:
    (tmp_path / "postroom-data").mkdir()
    (tmp_path / "postroom-data" / "postroom.db").touch()
    code, lines = refused(tmp_path, "--dev")
    assert code == 2
    (line,) = lines
    assert line.startswith("postroom: store: postroom-data/postroom.db has the messages of one process, which several")
    assert line.endswith("begin anew beside it with embedded:///postroom-data/workers")


def test_a_taken_port_is_said_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, lines = refused(tmp_path, "--dev", "--port", str(port))
    assert code == 1
    assert lines == [f"postroom: cannot listen on 127.0.0.1:{port}: Address already in use"]


def test_a_failure_of_all_workers_is_said_by_the_first(tmp_path: Path) -> None:
    code, lines = refused(tmp_path, "--dev", "--store", f"redis://127.0.0.1:{free_port()}?timeout=1")
    assert code == 1
    assert len(lines) == 1
    assert "refused" in lines[0]


def test_a_valkey_that_cannot_read_its_data_ends_the_whole(tmp_path: Path) -> None:
    data = tmp_path / "postroom-data" / "workers" / "appendonlydir"
    data.mkdir(parents=True)
    (data / "appendonly.aof.manifest").write_text("nonsense\n", encoding="utf-8")
    code, lines = refused(tmp_path, "--dev")
    assert code == 1
    assert lines == ["postroom: the embedded Valkey ended with exit code 1; see postroom-data/workers/valkey.log"]


def test_one_folder_is_for_one_server(start: Callable[..., Workers], tmp_path: Path) -> None:
    start()
    code, lines = refused(tmp_path, "--dev")
    assert code == 2
    assert lines == [f"postroom: another Postroom keeps its messages in {tmp_path}/postroom-data/workers"]
