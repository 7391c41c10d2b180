"""The services of `examples/sockjs_echo.py`, in a process of their own."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.deadline import DEADLINE
from tests.support.http import fetch
from tests.support.server import free_port

_EXAMPLE = Path(__file__).parents[3] / "examples" / "sockjs_echo.py"


@pytest.fixture(scope="session")
def port() -> Iterator[int]:
    """Where they are served."""
    port = free_port()
    process = subprocess.Popen([sys.executable, str(_EXAMPLE), "--port", str(port)], stdin=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 2 * DEADLINE
        while not _answers(port):
            assert process.poll() is None, "the example has ended"
            assert time.monotonic() < end, "the example does not answer"
            time.sleep(0.02)
        yield port
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        return fetch(port, "GET", "/echo").status == 200
    except OSError:
        return False
