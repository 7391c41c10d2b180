"""What the load generator refuses before it puts load on anybody, and the pictures that it draws."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from postroom.bench import plot
from postroom.bench.cli import bench
from postroom.bench.load import BenchFailed, Load
from postroom.bench.report import Report, lines, save

NOWHERE = "ws://127.0.0.1:1/ws"


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(bench, arguments)
    return result.exit_code, result.output


def report(*, series: bool = True, latencies: bool = True) -> Report:
    load = Load(
        url=NOWHERE,
        connections=3,
        duration=2.0,
        warmup=0.0,
        body_bytes=128,
        outstanding=4,
        destination="/topic/x",
        login_prefix="b",
    )
    return Report(
        scenario="fanout",
        unit="deliveries",
        load=load,
        rate=1500.0,
        seconds=2.0,
        sent=1000,
        received=3000,
        refused=0,
        failed=0,
        lost=0,
        generator_cpu=0.5,
        series=[(1.0, 1000.0), (2.0, 2000.0)] if series else [],
        latency_buckets_us=[(100, 900), (2_000, 95), (40_000, 5)] if latencies else [],
    )


@pytest.mark.parametrize("scenario", ["fanout", "direct", "durable", "connect", "idle"])
def test_each_scenario_says_what_it_does_and_its_defaults(scenario: str) -> None:
    code, said = run(scenario, "--help")
    assert code == 0
    assert "[default: " in said


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["direct", NOWHERE, "--destination", "/topic/x"], "it must hold {name}"),
        (["direct", NOWHERE, "--connections", "0"], "not in the range"),
        (["fanout", NOWHERE, "--json", "/no/such/folder/x.json"], "there is no folder /no/such/folder"),
        (["idle", NOWHERE, "--pid", "999999999"], "the memory of process 999999999 cannot be read"),
        (["durable", NOWHERE], "cannot connect to ws://127.0.0.1:1/ws"),
        (["connect", "http://127.0.0.1:1/"], "scheme isn't ws or wss"),
    ],
)
def test_what_cannot_work_is_said_in_a_line(arguments: list[str], reason: str) -> None:
    code, said = run(*arguments)
    assert code in (1, 2)
    assert reason in said
    assert "Traceback" not in said


def test_a_picture_of_a_kind_that_cannot_be_drawn_is_refused_before_the_run(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(BenchFailed, match="must end in one of"):
        plot.require(tmp_path / "x.xyz")
    plot.require(tmp_path / "x.PNG")


@pytest.mark.parametrize("series", [True, False])
@pytest.mark.parametrize("latencies", [True, False])
@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_picture_is_drawn_of_whatever_was_measured(
    tmp_path: Path, series: bool, latencies: bool, suffix: str
) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / f"x{suffix}"
    plot.draw(report(series=series, latencies=latencies), file)
    assert file.stat().st_size > 1000


def test_the_curve_gives_each_nine_a_decade() -> None:
    assert plot.curve([(100, 900), (2_000, 90), (40_000, 10)]) == [(10.0, 0.1), (100.0, 2.0), (1000.0, 40.0)]
    assert plot.curve([]) == []


def test_a_report_says_what_was_asked_and_what_came_of_it(tmp_path: Path) -> None:
    done = report()
    assert lines(done)[0] == "fanout: 1,500 deliveries/s over 2.0 s (3 connections, 128 B, 4 outstanding, stomp)"
    save(done, tmp_path / "x.json")
    assert (tmp_path / "x.json").read_text().startswith('{\n  "scenario": "fanout",')
