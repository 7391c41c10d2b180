"""Two people on the real page, in a real browser; and the form endpoints against the real server."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.services import require

CHROMIUM = shutil.which("chromium") or "chromium"
HERE = Path(__file__).parent
DEADLINE = 20 * float(os.environ.get("POSTROOM_TEST_SCALE", "1"))


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[str]:
    """The URL of `postroom demo`, as `make run` starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = f"sqlite:///{tmp_path}/x.db"
    server = subprocess.Popen(
        [sys.executable, "-m", "postroom", "demo", "--port", str(port), "--store", store], cwd=tmp_path
    )
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + DEADLINE
        while time.monotonic() < until:
            try:
                httpx.get(f"{url}/healthz")
                break
            except httpx.TransportError:
                time.sleep(0.05)
        yield url
    finally:
        server.terminate()
        assert server.wait(DEADLINE) == 0


@pytest.mark.e2e
@pytest.mark.timeout(120)
def test_two_people_write_to_each_other_and_one_is_away_for_a_while(demo: str) -> None:
    require("node")
    require("chromium", install="apt-get install chromium")
    done = subprocess.run(
        ["node", str(HERE / "chat_page.mjs"), demo, CHROMIUM, os.environ.get("POSTROOM_SCREENSHOT", "")],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


@pytest.mark.e2e
def test_the_form_endpoints_hand_out_what_waits_once(demo: str) -> None:
    with httpx.Client(base_url=demo) as anna, httpx.Client(base_url=demo) as bob:
        anna.post("/login", data={"username": "anna"})
        bob.post("/login", data={"username": "bob"})
        for number in range(3):
            answer = anna.post("/wsTemplate/sendToUser", data={"receiver": "bob", "msg": f"no {number}"})
            assert answer.text == "ok"
        pull = {"destination": "/topic/reply"}
        expected = [f'{{"content":"anna say: no {number}"}}' for number in range(3)]
        assert bob.post("/wsTemplate/pullUnreadMessage", data=pull).json() == {"code": "200", "result": expected}
        assert bob.post("/wsTemplate/pullUnreadMessage", data=pull).json() == {"code": "200"}
        anna.post("/wsTemplate/sendToUser", data={"receiver": "bob", "msg": "later"})
        again = bob.post("/wsTemplate/pullUnreadMessage", data=pull).json()
        assert again["result"] == ['{"content":"anna say: later"}']
