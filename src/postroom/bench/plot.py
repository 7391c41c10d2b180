"""A picture of one run: the rate over time, and the latency by percentile. Needs matplotlib (extra `bench`)."""

import importlib.util
from pathlib import Path

from postroom.bench.report import Report
from postroom.errors import MissingExtra

MAX_NINES = 99_999


def require() -> None:
    """Raise MissingExtra if matplotlib is not there; to be called before the run, not after it."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtra("--plot", "bench")


def draw(done: Report, path: Path) -> None:
    """Write the picture; the file's suffix (.png, .svg) says which kind. Raises MissingExtra."""
    require()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    rates, latency = figure.subplots(1, 2)
    rates.plot([second for second, _ in done.series], [rate for _, rate in done.series])
    rates.set(xlabel="second", ylabel=f"{done.unit}/s", title=f"{done.scenario}: {done.rate:,.0f}/s")
    rates.set_ylim(bottom=0)
    points = curve(done.latency_buckets_us)
    latency.plot([below for below, _ in points], [value for _, value in points])
    latency.set(xlabel="percentile", ylabel="latency, ms", title="latency", yscale="log", xscale="log")
    latency.set_xticks([1, 10, 100, 1000], labels=["0", "90", "99", "99.9"])
    for axes in (rates, latency):
        axes.grid(alpha=0.3)
    figure.savefig(path)


def curve(buckets: list[tuple[int, int]]) -> list[tuple[float, float]]:
    """Give (1 / share above, milliseconds) for each bucket: a decade to the right is one more nine."""
    total = sum(count for _, count in buckets)
    points, seen = [], 0
    for upper, count in buckets:
        seen += count
        points.append((min(total / (total - seen) if seen < total else total, MAX_NINES), upper / 1000))
    return points
