"""What travels between nodes, by routing scheme, as nodes are added: `make bench-wire`.

    python -m benchmarks.wire [--nodes 1 2 4 8] [--rate N] [--markdown FILE]

One Valkey, N nodes, all senders on the first node, receivers spread evenly over all. While messages flow at one
rate, Valkey's counters and the nodes' are read twice, and the differences are divided by the messages between.
Counts and bytes do not depend on the machine's speed; what travels together does depend on the rate.
"""

import argparse
import contextlib
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import redis
from benchmarks.cluster import CONFIG
from benchmarks.processes import RESULTS, bench, free_port, metrics, postroom, running, valkey
from msgspec import Struct, structs

ROUTINGS: Final = ("broadcast", "directory", "subject")
KINDS: Final = {"transient": "direct", "durable": "durable"}
PAIRS: Final = 400
SECONDS: Final = 5.0


class Counters(Struct, frozen=True):
    """What was counted up to now: bytes at Valkey's side, and what the nodes published, heard and dropped."""

    messages: float
    published: float
    received: float
    wasted: float
    bytes_in: float
    bytes_out: float
    cpu_us: float

    def since(self, before: "Counters") -> dict[str, float]:
        """The differences, for each message."""
        now, then = structs.asdict(self), structs.asdict(before)
        messages = self.messages - before.messages
        return {name: (now[name] - then[name]) / messages for name in now if name != "messages"}


def read(server: Any, ports: Sequence[int]) -> Counters:
    """The counters of Valkey, and the sums of the nodes'."""
    told = server.info("everything")
    sums = metrics(ports)
    return Counters(
        messages=sums["postroom_received_total"],
        published=sums["postroom_backplane_published_total"],
        received=sums["postroom_backplane_received_total"],
        wasted=sums["postroom_backplane_wasted_total"],
        bytes_in=told["total_net_input_bytes"],
        bytes_out=told["total_net_output_bytes"],
        cpu_us=(told["used_cpu_user"] + told["used_cpu_sys"]) * 1e6,
    )


@contextlib.contextmanager
def cluster(folder: str, store: int, count: int, routing: str) -> Iterator[Sequence[int]]:
    """The ports of `count` nodes on the Valkey at the port `store`."""
    config = Path(folder) / "postroom.toml"
    config.write_text(CONFIG)
    with contextlib.ExitStack() as stack:
        ports = [free_port() for _ in range(count)]
        for number, port in enumerate(ports, 1):
            own = ["--node-id", f"node-{number}", "--store", f"redis://127.0.0.1:{store}", "--routing", routing]
            stack.enter_context(running(postroom("serve", "--config", str(config), "--port", str(port), *own), port))
        yield ports


def measure(routing: str, kind: str, count: int, rate: float) -> dict[str, float]:
    """What one message costs with `count` nodes."""
    with (
        tempfile.TemporaryDirectory() as folder,
        valkey(folder) as store,
        redis.Redis(port=store) as server,
        cluster(folder, store, count, routing) as ports,
    ):
        spread = [part for port in ports for part in ("--receivers-url", f"ws://127.0.0.1:{port}/ws")]
        options = ["--connections", str(PAIRS), "--rate", str(rate), "--duration", str(SECONDS), "--warmup", "1"]
        report: dict[str, Any] = {}

        def load() -> None:
            report.update(bench(folder, KINDS[kind], f"ws://127.0.0.1:{ports[0]}/ws", *options, *spread))

        loader = threading.Thread(target=load)
        loader.start()
        while read(server, ports).messages < rate:
            time.sleep(0.1)
        before = read(server, ports)
        time.sleep(SECONDS - 2)
        after = read(server, ports)
        loader.join()
        if not report["ok"]:
            raise RuntimeError(f"the run failed: {report['notes']} {report['figures']}")
        return after.since(before)


def table(results: Sequence[dict[str, Any]], rate: float) -> str:
    """What was measured, in Markdown."""
    head = f"| {rate:,.0f} messages/s | nodes | publishes | deliveries to nodes | dropped there "
    rows = [
        head + "| bytes into Valkey | bytes out of Valkey | Valkey CPU µs |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    rows += (
        f"| {one['kind']}, {one['routing']} | {one['nodes']} | {one['published']:.2f} | {one['received']:.2f} "
        f"| {one['wasted']:.2f} | {one['bytes_in']:,.0f} | {one['bytes_out']:,.0f} | {one['cpu_us']:.1f} |"
        for one in results
    )
    return "\n".join(rows) + "\n"


def main() -> None:
    """Measure, print, and keep the figures in `benchmarks/results/wire.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rate", type=float, default=4_000.0, help="messages a second")
    parser.add_argument("--rounds", type=int, default=1, help="of which the medians are kept")
    parser.add_argument("--markdown", type=Path, help="write the table to this file too")
    options = parser.parse_args()
    results = []
    for kind in KINDS:
        for routing in ROUTINGS:
            for count in options.nodes:
                rounds = [measure(routing, kind, count, options.rate) for _ in range(options.rounds)]
                medians = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
                results.append({"kind": kind, "routing": routing, "nodes": count, **medians})
                print(table(results[-1:], options.rate).splitlines()[-1], flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "wire.json").write_text(json.dumps(results, indent=1))
    print("\n" + table(results, options.rate))
    if options.markdown is not None:
        options.markdown.write_text(table(results, options.rate), encoding="utf-8")


if __name__ == "__main__":
    main()
