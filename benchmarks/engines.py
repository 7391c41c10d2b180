"""Every backplane, every routing scheme, in one run: `python -m benchmarks.engines`, or `make bench-engines`.

    python -m benchmarks.engines [--only NATS] [--nodes 2 4 8] [--rounds N] [--rate N] [--markdown FILE]

Two nodes, the backplane's server, and a Valkey that keeps the directory (the same one where it is the backplane too);
one load generator: all senders on the first node, receivers on the others. Transient messages from user to user, so
that the backplane is what is measured. Throughput is with a bounded number of messages on their way, latency and CPU
at one moderate rate. With --nodes, broadcast and directory are measured at that rate while nodes are added.
"""

import argparse
import contextlib
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from benchmarks.cluster import CONFIG
from benchmarks.processes import RESULTS, bench, cpu_seconds, free_port, metrics, postroom, running
from msgspec import Struct, structs
from tests.support.engines import Broker, Nats, RabbitMQ
from tests.support.kafka import Kafka
from tests.support.postgres import Postgres
from tests.support.valkey import Valkey

ROUTINGS: Final = ("broadcast", "directory", "subject")
PAIRS: Final = 100
SECONDS: Final = 4.0


class Engine(Struct, frozen=True):
    """A backplane's URL, and the process that serves it."""

    url: str
    pid: int


class Found(Struct, frozen=True):
    """What one run found; CPU and counts are for each message, in microseconds and bytes."""

    rate: float
    p50: float
    p99: float
    nodes_cpu: float
    engine_cpu: float
    deliveries: float
    bytes: float
    wasted: float


Serve = Callable[[Path], AbstractContextManager[Engine]]
"""Serves an engine, its data in a folder, while the context is open."""


def _served(make: Callable[[Path], Valkey | Broker]) -> Serve:
    @contextlib.contextmanager
    def serve(folder: Path) -> Iterator[Engine]:
        with make(folder) as server:
            yield Engine(server.url, server.process.pid)

    return serve


@contextlib.contextmanager
def _postgres(folder: Path) -> Iterator[Engine]:
    with Postgres() as server:
        yield Engine(server.url(), server.pid)


ENGINES: Final[dict[str, Serve]] = {
    "Valkey": _served(Valkey),
    "NATS": _served(Nats),
    "RabbitMQ": _served(RabbitMQ),
    "Kafka": _served(Kafka),
    "PostgreSQL": _postgres,
}


@contextlib.contextmanager
def cluster(folder: Path, engine: Engine, store: str, routing: str, count: int) -> Iterator[dict[int, int]]:
    """The ports of `count` nodes, and their processes."""
    config = folder / "postroom.toml"
    config.write_text(CONFIG)
    with contextlib.ExitStack() as stack:
        nodes = {}
        for number in range(1, count + 1):
            port = free_port()
            own = ["--node-id", f"node-{number}", "--port", str(port), "--store", store, "--backplane", engine.url]
            command = postroom("serve", "--config", str(config), "--routing", routing, *own)
            nodes[port] = stack.enter_context(running(command, port))
        yield nodes


def measure(folder: Path, nodes: dict[int, int], engine: Engine, *, rate: float) -> Found:
    """One run over running nodes; 0: as many messages a second as go."""
    ports = list(nodes)
    spread = [part for port in ports[1:] for part in ("--receivers-url", f"ws://127.0.0.1:{port}/ws")]
    options = ["--connections", str(PAIRS), "--rate", str(rate), "--duration", str(SECONDS), "--warmup", "1"]
    before, used, own = metrics(ports), cpu_seconds(nodes.values()), cpu_seconds([engine.pid])
    report = bench(str(folder), "direct", f"ws://127.0.0.1:{ports[0]}/ws", *options, *spread)
    if not report["ok"]:
        raise RuntimeError(f"the run failed: {report['notes']} {report['figures']}")
    after, sent = metrics(ports), int(report["sent"])

    def grown(name: str) -> float:
        return (after[f"postroom_{name}_total"] - before[f"postroom_{name}_total"]) / sent

    return Found(
        rate=report["rate"],
        p50=report["latency_ms"]["p50"],
        p99=report["latency_ms"]["p99"],
        nodes_cpu=1e6 * (cpu_seconds(nodes.values()) - used) / sent,
        engine_cpu=1e6 * (cpu_seconds([engine.pid]) - own) / sent,
        deliveries=grown("backplane_received"),
        bytes=grown("backplane_bytes_received"),
        wasted=grown("backplane_wasted"),
    )


def run(name: str, routing: str, count: int, rates: Sequence[float]) -> list[Found]:
    """One run a rate, on a server and nodes of their own."""
    with tempfile.TemporaryDirectory() as home, contextlib.ExitStack() as stack:
        folder = Path(home)
        engine = stack.enter_context(ENGINES[name](folder / "engine"))
        store = engine if name == "Valkey" else stack.enter_context(ENGINES["Valkey"](folder / "store"))
        nodes = stack.enter_context(cluster(folder, engine, store.url, routing, count))
        return [measure(folder, nodes, engine, rate=rate) for rate in rates]


def medians(rounds: Sequence[Found]) -> Found:
    """Of each figure the median."""
    told = [structs.asdict(each) for each in rounds]
    return Found(**{name: statistics.median(each[name] for each in told) for name in told[0]})


def compare(names: Sequence[str], rounds: int, rate: float) -> str:
    """All engines and schemes with two nodes, as a table."""
    head = "| backplane, routing | messages/s | p50, p99 ms at " + f"{rate:,.0f}/s | CPU of both nodes µs "
    rows = [head + "| CPU of the engine µs | bytes to nodes |", "| --- | --- | --- | --- | --- | --- |"]
    for name in names:
        for routing in ROUTINGS:
            done = [run(name, routing, 2, (0.0, rate)) for _ in range(rounds)]
            fast, paced = medians([most for most, _ in done]), medians([some for _, some in done])
            rows.append(
                f"| {name}, {routing} | {fast.rate:,.0f} | {paced.p50:.1f}, {paced.p99:.1f} | {paced.nodes_cpu:.0f} "
                f"| {paced.engine_cpu:.0f} | {paced.bytes:,.0f} |"
            )
            print(rows[-1], flush=True)
    return "\n".join(rows) + "\n"


def grow(names: Sequence[str], counts: Sequence[int], rate: float) -> str:
    """Broadcast against directory at one rate while nodes are added, as a table."""
    head = f"| backplane, routing, at {rate:,.0f} messages/s | nodes | deliveries to nodes | dropped there "
    rows = [head + "| bytes to nodes | CPU of all nodes µs | CPU of the engine µs |", "| --- |" + " --- |" * 6]
    for name in names:
        for routing in ("broadcast", "directory"):
            for count in counts:
                (paced,) = run(name, routing, count, (rate,))
                rows.append(
                    f"| {name}, {routing} | {count} | {paced.deliveries:.2f} | {paced.wasted:.2f} "
                    f"| {paced.bytes:,.0f} | {paced.nodes_cpu:.0f} | {paced.engine_cpu:.0f} |"
                )
                print(rows[-1], flush=True)
    return "\n".join(rows) + "\n"


def main() -> None:
    """Measure, print, and keep the tables in `benchmarks/results/engines.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=tuple(ENGINES), action="append")
    parser.add_argument("--nodes", type=int, nargs="*", default=[], help="add nodes: broadcast against directory")
    parser.add_argument("--rounds", type=int, default=1, help="of which the medians are kept")
    parser.add_argument("--rate", type=float, default=2_000.0, help="messages a second for latency and CPU")
    parser.add_argument("--markdown", type=Path, help="write the tables to this file too")
    options = parser.parse_args()
    names = options.only or list(ENGINES)
    tables = [compare(names, options.rounds, options.rate)]
    if options.nodes:
        tables.append(grow(names, options.nodes, options.rate))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "engines.json").write_text(json.dumps(tables))
    if options.markdown is not None:
        options.markdown.write_text("\n".join(tables), encoding="utf-8")


if __name__ == "__main__":
    main()
