"""From node to node through a Valkey, against Socket.IO with its two adapters, in one run: `make bench-cluster`.

    python -m benchmarks.cluster [--quick] [--rounds N] [--rate N] [--markdown FILE]

Two nodes, one Valkey, one load generator: all senders on the first node, all receivers on the second. Contenders are
measured in turn, round after round, and medians are compared: believe the ratios, not the absolute figures. The
throughput of each is measured with a bounded number of messages on their way, its latency at one moderate rate.
"""

import argparse
import contextlib
import json
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.processes import RESULTS, SERVERS, bench, free_port, postroom, running, valkey

CONFIG: Final = """
dev = true

[[channel]]
code = "BENCH-DIRECT"
destination = "/user/*/queue/bench-transient"
delivery = "transient"
"""
TRANSIENT: Final = "Postroom, transient"
DURABLE: Final = "Postroom, durable, receipts (fsync each second)"
SYNCED: Final = "Postroom, durable, receipts (fsync before each)"
ADAPTER: Final = "Socket.IO, Redis adapter"
STREAMS: Final = "Socket.IO, Redis Streams adapter"
CONTENDERS: Final = (TRANSIENT, DURABLE, SYNCED, ADAPTER, STREAMS)
Report = dict[str, Any]


@contextlib.contextmanager
def nodes(name: str, folder: str, count: int = 2) -> Iterator[Sequence[str]]:
    """The URLs of `count` nodes of one contender."""
    synced = "always" if name == SYNCED else "everysec"
    with contextlib.ExitStack() as stack:
        store = f"redis://127.0.0.1:{stack.enter_context(valkey(folder, '--appendfsync', synced))}"
        ports = [free_port() for _ in range(count)]
        for number, port in enumerate(ports, 1):
            stack.enter_context(running(_command(name, folder, store, number, port), port))
        path = "/ws" if name.startswith("Postroom") else "/socket.io/?EIO=4&transport=websocket"
        yield [f"ws://127.0.0.1:{port}{path}" for port in ports]


def _command(name: str, folder: str, store: str, number: int, port: int) -> list[str]:
    if name in (ADAPTER, STREAMS):
        adapter = "redis" if name == ADAPTER else "streams"
        return ["node", str(SERVERS / "socketio_server.mjs"), str(port), adapter, store]
    config = Path(folder) / "postroom.toml"
    config.write_text(CONFIG)
    own = ["--node-id", f"node-{number}", "--port", str(port), "--store", store]
    return postroom("serve", "--config", str(config), *own)


def measure(name: str, seconds: float, *, rate: float = 0.0, outstanding: int = 16) -> Report:
    """One run of one contender; without a `rate`, each sender keeps `outstanding` messages on their way."""
    scenario = "durable" if name in (DURABLE, SYNCED) else "direct"
    dialect = "stomp" if name.startswith("Postroom") else "socketio"
    options = [
        "--dialect",
        dialect,
        "--outstanding",
        str(outstanding),
        "--duration",
        str(seconds),
        "--warmup",
        str(min(2.0, seconds / 3)),
    ]
    with tempfile.TemporaryDirectory() as folder, nodes(name, folder) as (first, second):
        return bench(folder, scenario, first, "--receivers-url", second, "--rate", str(rate), *options)


def table(results: dict[str, dict[str, list[Report]]], rate: float) -> str:
    """What was measured, in Markdown."""
    baseline = _median(results[ADAPTER]["throughput"], "rate")
    rows = [
        f"| node to node | messages/s | / Redis adapter | p50, p99 ms at {rate:,.0f}/s |",
        "| --- | --- | --- | --- |",
    ]
    for name, by_kind in results.items():
        found = _median(by_kind["throughput"], "rate")
        p50, p99 = (statistics.median(one["latency_ms"][key] for one in by_kind["paced"]) for key in ("p50", "p99"))
        rows.append(f"| {name} | {found:,.0f} | {found / baseline:.1f} | {p50:.1f}, {p99:.1f} |")
    return "\n".join(rows) + "\n"


def _median(reports: Sequence[Report], key: str) -> float:
    return statistics.median(float(report[key]) for report in reports)


def main() -> None:
    """Measure, print, and keep the reports in `benchmarks/results/cluster.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rate", type=float, default=5_000.0, help="messages a second for the latency")
    parser.add_argument("--outstanding", type=int, default=16, help="messages on their way for each sender")
    parser.add_argument("--only", choices=CONTENDERS, action="append")
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--markdown", type=Path, help="write the table to this file too")
    options = parser.parse_args()
    rounds, seconds = (1, 2.0) if options.quick else (options.rounds, options.seconds)
    results: dict[str, dict[str, list[Report]]] = {
        name: {"throughput": [], "paced": []} for name in options.only or CONTENDERS
    }
    for number in range(rounds):
        for name, by_kind in results.items():
            for kind, rate in (("throughput", 0.0), ("paced", options.rate)):
                report = measure(name, seconds, rate=rate, outstanding=options.outstanding)
                by_kind[kind].append(report)
                latency = report.get("latency_ms") or {}
                told = f"p50 {latency.get('p50', 0):8.2f}  p99 {latency.get('p99', 0):8.2f} ms"
                wrong = "" if report["ok"] else f"  NOT OK: {report['notes']} {report['figures']}"
                print(f"{number + 1} {kind:10} {report['rate']:12,.0f}/s  {told}  {name}{wrong}", flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "cluster.json").write_text(json.dumps(results, indent=1))
    if ADAPTER in results:
        print("\n" + table(results, options.rate))
        if options.markdown is not None:
            options.markdown.write_text(table(results, options.rate), encoding="utf-8")


if __name__ == "__main__":
    main()
