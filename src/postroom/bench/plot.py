"""A picture of one run: the rate over time, and the latency by percentile. Needs matplotlib (extra `bench`)."""

import importlib.util
from pathlib import Path

from postroom.bench.load import BenchFailed
from postroom.bench.report import Report
from postroom.errors import MissingExtra

MAX_NINES = 99_999
TICKS = {2: "50 %", 10: "90 %", 100: "99 %", 1000: "99.9 %", 10_000: "99.99 %"}
SUFFIXES = (".pdf", ".png", ".svg")


def require(path: Path) -> None:
    """Raise MissingExtra if matplotlib is not there, BenchFailed if it has no such pictures: before the run."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtra("--plot", "bench")
    if path.suffix.lower() not in SUFFIXES:
        raise BenchFailed(f"--plot: {path} must end in one of {', '.join(SUFFIXES)}")


def draw(done: Report, path: Path) -> None:
    """Write the picture; the file's suffix says which kind."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    thousands = FuncFormatter(lambda value, _: f"{value:,.6g}")
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    rates, latency = figure.subplots(1, 2)
    # Each sample is the mean of the time since the one before it.
    samples = [(0.0, rate) for _, rate in done.series[:1]] + done.series
    rates.step([at for at, _ in samples], [rate for _, rate in samples], where="pre")
    rates.set(xlabel="second", ylabel=f"{done.unit}/s", title=f"{done.scenario}: {done.rate:,.0f} {done.unit}/s")
    rates.set_xlim(left=0)
    rates.set_ylim(0, 1.1 * max((rate for _, rate in done.series), default=0.0) or 1.0)
    rates.yaxis.set_major_formatter(thousands)
    points = curve(done.latency_buckets_us)
    latency.set(xlabel="percentile", ylabel="ms", title="latency")
    if points:
        latency.plot([below for below, _ in points], [value for _, value in points])
        latency.set(xscale="log", yscale="log")
        latency.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        latency.yaxis.set_major_formatter(thousands)
        furthest = points[-1][0]
        latency.set_xticks([at for at in TICKS if at <= furthest], [TICKS[at] for at in TICKS if at <= furthest])
        for axis in (latency.xaxis, latency.yaxis):
            axis.set_minor_locator(NullLocator())
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
