"""What a run says at its end: a line for people, JSON for programs."""

import sys
from collections.abc import Callable
from pathlib import Path

import click
import msgspec
from msgspec import field

from postroom.bench.load import Load, Measured, Tally

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9}


class Report(msgspec.Struct, kw_only=True):
    """A finished run. Latencies are milliseconds; `series` is (second, rate)."""

    scenario: str
    unit: str
    load: Load
    rate: float
    seconds: float
    sent: int
    received: int
    refused: int
    failed: int
    lost: int
    generator_cpu: float
    latency_ms: dict[str, float] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    series: list[tuple[float, float]] = field(default_factory=list)
    latency_buckets_us: list[tuple[int, int]] = field(default_factory=list)
    ok: bool = True


def report(scenario: str, unit: str, load: Load, tally: Tally, measured: Measured, **figures: float) -> Report:
    """Sum a run up. It is not `ok` if it stalled, or if anything was refused, failed or lost."""
    notes = list(tally.notes)
    if measured.stalled:
        notes.append("stalled: nothing arrived for ten seconds")
    return Report(
        scenario=scenario,
        unit=unit,
        load=load,
        rate=round(measured.rate, 1),
        seconds=round(measured.seconds, 3),
        sent=tally.sent,
        received=tally.received,
        refused=tally.refused,
        failed=tally.failed,
        lost=tally.lost,
        generator_cpu=round(measured.generator_cpu, 3),
        latency_ms=latencies(tally),
        figures=figures,
        notes=notes,
        series=measured.series,
        latency_buckets_us=list(tally.latency.buckets()),
        ok=not (measured.stalled or tally.refused or tally.failed or tally.lost),
    )


def latencies(tally: Tally) -> dict[str, float]:
    """Give the percentiles and the maximum in milliseconds; nothing if nothing was recorded."""
    if not tally.latency.total:
        return {}
    found = {name: tally.latency.percentile(percent) / 1000 for name, percent in PERCENTILES.items()}
    return found | {"max": tally.latency.highest / 1000}


def lines(done: Report) -> list[str]:
    """Say a report in a few lines of text."""
    said = [
        f"{done.scenario}: {done.rate:,.0f} {done.unit}/s over {done.seconds:.1f} s ({', '.join(_asked(done.load))})",
        (
            f"  sent {done.sent:,}  received {done.received:,}  refused {done.refused}  errors {done.failed}  "
            f"lost connections {done.lost}  generator CPU {done.generator_cpu:.0%}"
        ),
    ]
    if done.latency_ms:
        said.append("  latency ms  " + "  ".join(f"{name} {value:.2f}" for name, value in done.latency_ms.items()))
    said.extend(f"  {name.replace('_', ' ')}: {value:,.10g}" for name, value in done.figures.items())
    said.extend(f"  note: {note}" for note in done.notes)
    if done.generator_cpu > 0.95:
        said.append("  note: the generator was at its limit; the server can do more than this")
    return said


def _asked(load: Load) -> list[str]:
    connections = [f"{load.connections} connections"] if load.connections else []
    messages = [f"{load.body_bytes} B"] if load.body_bytes else []
    return [*connections, *messages, f"{load.outstanding} outstanding", load.dialect_name]


def save(done: Report, path: Path) -> None:
    """Write a report as JSON, replacing the file."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(done), indent=2) + b"\n")


def progress_line(*, quiet: bool) -> Callable[[str], None]:
    """Give what shows progress on stderr: one rewritten line on a terminal, a line each elsewhere."""
    if quiet:
        return lambda _: None
    if sys.stderr.isatty():
        return lambda text: click.echo(f"\r{text:<78}", nl=False, err=True)
    return lambda text: click.echo(text, err=True)
