"""`postroom demo --nodes`: several nodes, a Valkey and a front behind one port, and what becomes of them."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from tests.support.deadline import DEADLINE
from tests.support.server import free_port
from tests.support.services import require

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

HERE = Path(__file__).parent
CHROMIUM = shutil.which("chromium") or "chromium"


_START = ("-m", "postroom")
_WITHOUT = ("-c", "import shutil; shutil.which = lambda *_, **__: None; from postroom.cli import main; main()")


class Demo:
    """One `postroom demo --nodes`, and everything that it started."""

    def __init__(self, folder: Path, *options: str, nginx: bool = True) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "demo.log"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *(_START if nginx else _WITHOUT), "demo", "--port", str(self.port), *options],
                cwd=folder,
                stdout=log,
                stderr=log,
                env=environment,
            )

    def wait(self) -> None:
        """Return once it says where it is."""
        self.until(lambda: f"{self.url}\n" in self.output())

    def until(self, what: Callable[[], bool]) -> None:
        """Return once `what` is true."""
        end = time.monotonic() + 3 * DEADLINE
        while not what():
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < end, self.output()
            time.sleep(0.05)

    def output(self) -> str:
        """What it said."""
        return re.sub(r"\x1b\[\d*m", "", self.log.read_text(encoding="utf-8", errors="replace"))

    def family(self) -> list[psutil.Process]:
        """Everything that it started."""
        return psutil.Process(self.process.pid).children(recursive=True)


@contextmanager
def demo(folder: Path, *options: str, nginx: bool = True) -> Iterator[Demo]:
    running = Demo(folder, *options, nginx=nginx)
    try:
        running.wait()
        yield running
    finally:
        if running.process.poll() is None:
            running.process.send_signal(signal.SIGTERM)
            assert running.process.wait(3 * DEADLINE) == 0, running.output()


def gone(family: list[psutil.Process]) -> None:
    """Return once none of them lives."""
    _, alive = psutil.wait_procs(family, timeout=2 * DEADLINE)
    assert alive == []


def talk(url: str) -> None:
    """Logs in, sends and reads, each request on whatever node takes it."""
    with httpx.Client(base_url=url) as anna, httpx.Client(base_url=url) as ben:
        assert anna.post("/login", data={"username": "anna"}).status_code == 303
        assert ben.post("/login", data={"username": "ben"}).status_code == 303
        for number in range(4):
            answer = anna.post("/wsTemplate/sendToUser", data={"receiver": "ben", "msg": f"no {number}"})
            assert answer.text == "ok"
        pulled: list[str] = []
        for _ in range(2):
            answer = ben.post("/wsTemplate/pullUnreadMessage", data={"destination": "/topic/reply"})
            pulled += answer.json().get("result", [])
        assert pulled == [f'{{"content":"anna say: no {number}"}}' for number in range(4)]


def test_two_people_on_two_nodes_in_one_window(tmp_path: Path) -> None:
    require("node")
    require("nginx", found=shutil.which("nginx") is not None or Path("/usr/sbin/nginx").exists())
    require("chromium", install="apt-get install chromium")
    with demo(tmp_path, "--nodes", "2") as running:
        assert "2 nodes behind nginx" in running.output()
        done = subprocess.run(
            ["node", str(HERE / "two_panes.mjs"), running.url, CHROMIUM, os.environ.get("POSTROOM_SCREENSHOT", "")],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr + running.output()
        talk(running.url)
        family = running.family()
    gone(family)
    assert "Traceback" not in running.output()


def test_the_same_behind_a_front_in_python_and_what_was_stored_stays(tmp_path: Path) -> None:
    with demo(tmp_path, "--nodes", "2", nginx=False) as running:
        assert "2 nodes behind a front in Python" in running.output()
        talk(running.url)
        with httpx.Client(base_url=running.url) as anna:
            anna.post("/login", data={"username": "anna"})
            anna.post("/wsTemplate/sendToUser", data={"receiver": "ben", "msg": "kept"})
            cookie = anna.cookies["postroom"]
    with (
        demo(tmp_path, "--nodes", "3", "--routing", "broadcast") as running,
        httpx.Client(base_url=running.url, cookies={"postroom": cookie}) as anna,
        httpx.Client(base_url=running.url) as ben,
    ):
        assert "You are <b" in anna.get("/").text, "the cookie is good for the next start too"
        ben.post("/login", data={"username": "ben"})
        pulled = ben.post("/wsTemplate/pullUnreadMessage", data={"destination": "/topic/reply"})
        assert pulled.json()["result"] == ['{"content":"anna say: kept"}']


def test_nothing_outlives_a_demo_that_is_killed(tmp_path: Path) -> None:
    with demo(tmp_path, "--nodes", "2") as running:
        family = running.family()
        assert len(family) >= 4
        running.process.kill()
        running.process.wait()
        gone(family)


def test_a_node_that_dies_ends_the_whole_and_is_named(tmp_path: Path) -> None:
    with demo(tmp_path, "--nodes", "2") as running:
        family = running.family()
        node = next(child for child in family if "demo-node" in child.cmdline())
        node.kill()
        assert running.process.wait(3 * DEADLINE) == 1
        assert re.search(r"postroom: node-\d was ended by SIGKILL", running.output())
        gone(family)


def test_a_taken_port_is_said_in_one_line(tmp_path: Path) -> None:
    with demo(tmp_path, "--nodes", "2") as running:
        again = subprocess.run(
            [sys.executable, "-m", "postroom", "demo", "--nodes", "2", "--port", str(running.port)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=2 * DEADLINE,
            check=False,
        )
        assert again.returncode == 1
        assert again.stderr.splitlines()[-1].startswith(f"postroom: cannot listen on 127.0.0.1:{running.port}: ")


@pytest.mark.parametrize("options", [["--store", "sqlite:///x.db"], ["--store", "memory:"]])
def test_a_store_that_nodes_cannot_share_is_refused(tmp_path: Path, options: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "postroom", "demo", "--nodes", "2", "--port", str(free_port()), *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("postroom: several nodes need a store that they share: ")
