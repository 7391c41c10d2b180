"""The services of `examples/sockjs_echo.py`, in processes of their own: by our server, and by those of others."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from tests.support.deadline import DEADLINE
from tests.support.http import fetch
from tests.support.server import free_port

_EXAMPLES = Path(__file__).parents[3] / "examples"
_OURS = "postroom"
_SERVERS: dict[str, Callable[[int], Sequence[str]]] = {
    _OURS: lambda port: [str(_EXAMPLES / "sockjs_echo.py"), "--port", str(port)],
    "uvicorn": lambda port: ["-m", "uvicorn", "sockjs_echo:web", "--port", str(port), "--lifespan", "off"],
    "hypercorn": lambda port: ["-m", "hypercorn", "sockjs_echo:web", "--bind", f"127.0.0.1:{port}"],
    "granian": lambda port: ["-m", "granian", "--interface", "asgi", "sockjs_echo:web", "--port", str(port)],
}


@contextlib.contextmanager
def _serving(name: str) -> Iterator[int]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, *_SERVERS[name](port)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(_EXAMPLES)},
    )
    try:
        end = time.monotonic() + 3 * DEADLINE
        while not _answers(port):
            assert process.poll() is None, f"{name} has ended"
            assert time.monotonic() < end, f"{name} does not answer"
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session", params=_SERVERS)
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    """Where they are served, by each server in turn."""
    with _serving(request.param) as port:
        yield port


@pytest.fixture(scope="session")
def own_port() -> Iterator[int]:
    """Where our server serves them: for what other servers decide by themselves."""
    with _serving(_OURS) as port:
        yield port


def _answers(port: int) -> bool:
    try:
        return fetch(port, "GET", "/echo").status == 200
    except (OSError, ValueError):
        return False
