"""Postroom against Node `ws` and Socket.IO, in one run: what `make bench` does.

    python -m benchmarks.run [--quick] [--rounds N] [--only fanout] [--markdown FILE]

Each server runs on one core, the load generator (`postroom bench`) on another. All servers of a scenario are
measured in turn, round after round, and medians are compared: believe the ratios, not the absolute figures.
"""

import argparse
import contextlib
import json
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.processes import RESULTS, SERVERS, bench, free_port, pin, postroom, running

CONFIG = """
dev = true

[[channel]]
code = "BENCH-DIRECT"
destination = "/user/*/queue/bench-transient"
delivery = "transient"
"""
POSTROOM, WS, SOCKETIO = "Postroom", "Node ws", "Socket.IO"
SCENARIOS: dict[str, tuple[str, tuple[str, ...]]] = {
    "fanout": ("deliveries/s to 1,000 subscribers", (POSTROOM, WS, SOCKETIO)),
    "direct": ("messages/s, user to user, transient", (POSTROOM, WS, SOCKETIO)),
    "durable": ("messages/s, user to user, on the disk, with receipts", (POSTROOM,)),
    "idle": ("bytes of RSS a connection with one subscription", (POSTROOM, WS, SOCKETIO)),
}


@contextlib.contextmanager
def server(name: str, folder: str) -> Iterator[tuple[str, int, str]]:
    """A running server: its URL, its process's id, and the dialect to speak with it."""
    port = free_port()
    config = Path(folder) / "postroom.toml"
    config.write_text(CONFIG)
    store = f"sqlite:///{folder}/{port}.db"
    command, url, dialect = {
        POSTROOM: (
            postroom("serve", "--config", str(config), "--port", str(port), "--store", store),
            f"ws://127.0.0.1:{port}/ws",
            "stomp",
        ),
        WS: (["node", str(SERVERS / "ws_server.mjs"), str(port)], f"ws://127.0.0.1:{port}/", "stomp"),
        SOCKETIO: (
            ["node", str(SERVERS / "socketio_server.mjs"), str(port)],
            f"ws://127.0.0.1:{port}/socket.io/?EIO=4&transport=websocket",
            "socketio",
        ),
    }[name]
    with running([*pin(0), *command], port) as pid:
        yield url, pid, dialect


def measure(scenario: str, name: str, folder: str, *, seconds: float, connections: int | None) -> dict[str, Any]:
    """One run of one scenario against one server."""
    with server(name, folder) as (url, pid, dialect):
        if scenario == "idle":
            options = ["--connections", str(connections or 5000), "--hold", "2", "--pid", str(pid)]
        else:
            options = ["--duration", str(seconds), "--warmup", str(min(2.0, seconds / 3))]
        return bench(folder, scenario, url, "--dialect", dialect, *options, core=1)


def figure(scenario: str, report: dict[str, Any]) -> float:
    """The one number of a report."""
    return float(report["figures"]["rss_bytes_per_connection"] if scenario == "idle" else report["rate"])


def table(results: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    """What was measured, in Markdown."""
    rows = ["| | Postroom | Node `ws` | Socket.IO | Postroom / `ws` | Postroom / Socket.IO | p50, p99 of Postroom |"]
    rows.append("| --- | --- | --- | --- | --- | --- | --- |")
    for scenario, by_server in results.items():
        median = {
            name: statistics.median(figure(scenario, report) for report in reports)
            for name, reports in by_server.items()
        }
        cells = [f"{median[name]:,.0f}" if name in median else "-" for name in (POSTROOM, WS, SOCKETIO)]
        ratios = [f"{median[POSTROOM] / median[name]:.1f}" if name in median else "-" for name in (WS, SOCKETIO)]
        latency = by_server[POSTROOM][-1].get("latency_ms") or {}
        told = f"{latency['p50']:.1f} ms, {latency['p99']:.1f} ms" if latency else "-"
        rows.append(f"| {SCENARIOS[scenario][0]} | " + " | ".join([*cells, *ratios, told]) + " |")
    return "\n".join(rows) + "\n"


def main() -> None:
    """Measure, print, and keep the reports in `benchmarks/results/latest.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--only", choices=sorted(SCENARIOS), action="append")
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--markdown", type=Path, help="write the table to this file too")
    options = parser.parse_args()
    rounds, seconds = (1, 2.0) if options.quick else (options.rounds, options.seconds)
    results: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for scenario in options.only or SCENARIOS:
        by_server: dict[str, list[dict[str, Any]]] = {name: [] for name in SCENARIOS[scenario][1]}
        for number in range(1 if scenario == "idle" else rounds):
            for name, reports in by_server.items():
                with tempfile.TemporaryDirectory() as folder:
                    report = measure(scenario, name, folder, seconds=seconds, connections=None)
                reports.append(report)
                wrong = "" if report["ok"] else f"  NOT OK: {report['notes']}"
                print(f"{scenario:8} {number + 1} {name:10} {figure(scenario, report):12,.0f}{wrong}", flush=True)
        results[scenario] = by_server
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "latest.json").write_text(json.dumps(results, indent=1))
    print("\n" + table(results))
    if options.markdown is not None:
        options.markdown.write_text(table(results), encoding="utf-8")


if __name__ == "__main__":
    main()
