"""One worker against several on this machine: `python -m benchmarks.workers [--rounds N] [--workers 1 2 4]`.

One process keeps its messages in SQLite, several in their embedded Valkey, as they do by default. The load generator
is one process that shares the cores with them: on two cores, two workers and it have two thirds of a core each.
"""

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Final

from benchmarks.cluster import CONFIG, Report
from benchmarks.processes import bench, cpu_seconds, free_port, wait_for

SCENARIOS: Final = {
    "user to user, transient": ("direct", 100, "messages"),
    "user to user, on the disk, with receipts": ("durable", 100, "messages"),
    "fan-out to 1,000 subscribers": ("fanout", 1000, "deliveries"),
}
_END_SECONDS: Final = 30


def measure(workers: int, scenario: str, connections: int, seconds: float) -> tuple[Report, float]:
    """One run, and the CPU time of all processes of the server for each message, in microseconds."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "postroom.toml"
        config.write_text(CONFIG)
        port = free_port()
        own = ["--config", str(config), "--port", str(port), "--workers", str(workers)]
        server = subprocess.Popen(
            [sys.executable, "-m", "postroom", "serve", *own], cwd=folder, stderr=subprocess.DEVNULL
        )
        try:
            wait_for(port, http=True)
            _wait_for_all(port, workers)
            begun = cpu_seconds([server.pid])
            options = ["--connections", str(connections), "--duration", str(seconds), "--warmup", "1"]
            report = bench(folder, scenario, f"ws://127.0.0.1:{port}/ws", *options)
            used = cpu_seconds([server.pid]) - begun
            return report, 1e6 * used / max(1, report["received"])
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(_END_SECONDS)


def _wait_for_all(port: int, workers: int) -> None:
    until = time.monotonic() + _END_SECONDS
    while time.monotonic() < until:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            told = json.load(answer).get("workers", {})
        if workers == 1 or (len(told) == workers and not any(told.values())):
            return
        time.sleep(0.1)
    raise TimeoutError(port)


def main() -> None:
    """Measure in turn, round after round, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for number in range(options.rounds):
        for name, (scenario, connections, _) in SCENARIOS.items():
            for workers in options.workers:
                report, cpu = measure(workers, scenario, connections, options.seconds)
                found.setdefault((name, workers), []).append((report["rate"], cpu))
                wrong = "" if report["ok"] else f"  NOT OK: {report['notes']} {report['figures']}"
                print(f"{number + 1} {report['rate']:12,.0f}/s {cpu:6.1f} µs  {workers} {name}{wrong}", flush=True)
    heads = " | ".join(f"{workers} workers, CPU µs each" for workers in options.workers)
    print(f"\n| | {heads} |\n| --- |{' --- |' * len(options.workers)}")
    for name, (_, _, unit) in SCENARIOS.items():
        cells = [tuple(map(statistics.median, zip(*found[name, workers], strict=True))) for workers in options.workers]
        print(f"| {unit}/s, {name} | " + " | ".join(f"{rate:,.0f}, {cpu:.1f}" for rate, cpu in cells) + " |")


if __name__ == "__main__":
    main()
