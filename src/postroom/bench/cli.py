"""`postroom bench`: options in, report out."""

import asyncio
import functools
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click

from postroom.bench import connecting, direct, fanout, idle, plot
from postroom.bench.dialect import DIALECTS
from postroom.bench.framing import MIN_BODY_BYTES
from postroom.bench.load import Load
from postroom.bench.process import raise_open_files
from postroom.bench.report import Report, lines, progress_line, save
from postroom.errors import PostroomError

Progress = Callable[[str], None]
Scenario = Callable[[Load, Progress], Coroutine[Any, Any, Report]]
SPARE_FILES = 100


@click.group()
def bench() -> None:
    """Put load on a server at URL (ws://host:port/path) and report what it does.

    The generator is one process on one core. Pin server and generator to different cores; believe ratios of
    one machine and one hour, not absolute figures. Exit status 1: something was lost, refused or out of order.
    """


def options(*, connections: int, outstanding: int, destination: str) -> Callable[[Callable[..., None]], Any]:
    """Give the options that all scenarios have, with a scenario's own defaults."""
    given = [
        click.argument("url"),
        click.option("--connections", "-c", type=click.IntRange(0, 1_000_000), default=connections),
        click.option("--duration", "-d", type=click.FloatRange(0.1, 3600), default=10.0, help="Seconds."),
        click.option("--warmup", type=click.FloatRange(0, 600), default=2.0, help="Seconds not counted."),
        click.option("--body-bytes", "-b", type=click.IntRange(MIN_BODY_BYTES, 1 << 24), default=128),
        click.option("--outstanding", "-w", type=click.IntRange(1, 100_000), default=outstanding),
        click.option("--destination", default=destination),
        click.option("--login-prefix", default="bench-", help="Users are PREFIX0, PREFIX1, …"),
        click.option("--dialect", "dialect_name", type=click.Choice(sorted(DIALECTS)), default="stomp"),
        click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path)),
        click.option("--plot", "plot_file", type=click.Path(dir_okay=False, path_type=Path)),
        click.option("--quiet", "-q", is_flag=True, help="No progress line."),
    ]

    def decorate(function: Callable[..., None]) -> Any:
        for one in reversed(given):
            function = one(function)
        return function

    return decorate


@bench.command("fanout")
@options(connections=1000, outstanding=4, destination="/topic/bench")
def fanout_command(**given: Any) -> None:
    """Broadcast to --connections subscribers, with --outstanding broadcasts on their way."""
    _drive(fanout.run, given)


@bench.command("direct")
@options(connections=100, outstanding=16, destination="/user/{name}/queue/bench-transient")
def direct_command(**given: Any) -> None:
    """Send from --connections users to as many others, --outstanding messages each, without receipts."""
    _drive(direct.run_direct, given)


@bench.command("durable")
@options(connections=100, outstanding=16, destination="/user/{name}/queue/bench")
def durable_command(**given: Any) -> None:
    """The same with a receipt for each message; what was receipted must arrive once and in order."""
    _drive(direct.run_durable, given)


@bench.command("connect")
@options(connections=0, outstanding=32, destination="/topic/bench")
def connect_command(**given: Any) -> None:
    """Connect, subscribe, close: --outstanding at a time, --connections in all (0: as many as there is time)."""
    _drive(connecting.run, given)


@bench.command("idle")
@options(connections=1000, outstanding=1, destination="/topic/bench")
@click.option("--hold", type=click.FloatRange(0.1, 3600), default=5.0, help="Seconds to hold (not --duration).")
@click.option("--pid", type=int, default=None, help="The server's process, to read its RSS.")
def idle_command(hold: float, pid: int | None, **given: Any) -> None:
    """Open --connections with a subscription each, hold them, and tell the server's memory for one."""
    _drive(functools.partial(idle.run, pid=pid), given | {"duration": hold})


def _drive(scenario: Scenario, given: dict[str, Any]) -> None:
    json_file, plot_file = given.pop("json_file"), given.pop("plot_file")
    load = Load(**given)
    try:
        if plot_file:
            plot.require()
        _check_files(load)
        done = _run_loop(scenario(load, progress_line(quiet=load.quiet)))
        if json_file:
            save(done, json_file)
        if plot_file:
            plot.draw(done, plot_file)
    except PostroomError as error:
        raise click.ClickException(str(error)) from None
    click.echo("\n".join(lines(done)))
    if not done.ok:
        sys.exit(1)


def _check_files(load: Load) -> None:
    wanted = 2 * load.connections + SPARE_FILES
    allowed = raise_open_files(wanted)
    if load.connections + SPARE_FILES > allowed:
        raise click.ClickException(
            f"{load.connections} connections need more than the {allowed} open files allowed: ulimit -n"
        )


def _run_loop(main: Coroutine[Any, Any, Report]) -> Report:
    try:
        import uvloop
    except ImportError:  # not on Windows
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
