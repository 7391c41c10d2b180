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


def options(
    *, connections: int, outstanding: int, destination: str, without: tuple[str, ...] = ()
) -> Callable[[Callable[..., None]], Any]:
    """Give the options that all scenarios have, with a scenario's own defaults; `without` those it has no use for."""
    file = click.Path(dir_okay=False, writable=True, path_type=Path)
    given: dict[str, Callable[..., Any]] = {
        "url": click.argument("url"),
        "connections": _number("--connections", "-c", 1, 1_000_000, connections, "Clients, or pairs of them."),
        "duration": _seconds("--duration", "-d", 0.1, 10.0, "Seconds that are measured."),
        "warmup": _seconds("--warmup", None, 0.0, 2.0, "Seconds before them that are not."),
        "body_bytes": _number("--body-bytes", "-b", MIN_BODY_BYTES, 1 << 24, 128, "The size of a message's body."),
        "outstanding": _number("--outstanding", "-w", 1, 100_000, outstanding, "How many are on their way at once."),
        "destination": click.option("--destination", metavar="TEXT", default=destination, show_default=True),
        "login_prefix": click.option(
            "--login-prefix", default="bench-", show_default=True, help="Users are PREFIX0, PREFIX1, …"
        ),
        "dialect_name": click.option(
            "--dialect",
            "dialect_name",
            type=click.Choice(sorted(DIALECTS)),
            default="stomp",
            show_default=True,
            help="What the server speaks.",
        ),
        "json_file": click.option("--json", "json_file", type=file, help="Write the report to FILE, as JSON."),
        "plot_file": click.option(
            "--plot", "plot_file", type=file, help="Draw rate and latency into FILE (.png, .svg)."
        ),
        "quiet": click.option("--quiet", "-q", is_flag=True, help="No progress on standard error."),
    }

    def decorate(function: Callable[..., None]) -> Any:
        for name, one in reversed(given.items()):
            if name not in without:
                function = one(function)
        return function

    return decorate


def _number(name: str, short: str, least: int, most: int, default: int, says: str) -> Callable[..., Any]:
    kind = click.IntRange(least, most)
    return click.option(name, short, type=kind, metavar="N", default=default, show_default=True, help=says)


def _seconds(name: str, short: str | None, least: float, default: float, says: str) -> Callable[..., Any]:
    names, kind = (name, short) if short else (name,), click.FloatRange(least, 3600)
    return click.option(*names, type=kind, metavar="S", default=default, show_default=True, help=says)


@bench.command("fanout")
@options(connections=1000, outstanding=4, destination="/topic/bench")
def fanout_command(**given: Any) -> None:
    """Broadcast to N subscribers of one topic, from one sender."""
    _drive(fanout.run, given)


def _between(function: Callable[..., None]) -> Callable[..., None]:
    """Give the options of the scenarios that go from user to user."""
    function = click.option(
        "--receivers-url",
        "receivers_urls",
        metavar="URL",
        multiple=True,
        help="Where the receivers connect: another node; several times, to spread them over several. [default: URL]",
    )(function)
    return click.option(
        "--rate",
        type=click.FloatRange(0, 10_000_000),
        metavar="N",
        default=0.0,
        help="So many messages a second in all, in place of --outstanding.",
    )(function)


@bench.command("direct")
@options(connections=100, outstanding=16, destination="/user/{name}/queue/bench-transient")
@_between
def direct_command(**given: Any) -> None:
    """Send from N users to as many others, without receipts.

    Each delivery lets its sender, who keeps --outstanding on their way, send the next message. {name} in the
    destination is the receiver. Users' destinations are durable by default: to measure without the store, give
    the server a channel with this destination and delivery = "transient".
    """
    _drive(direct.run_direct, _to_each(given))


@bench.command("durable")
@options(connections=100, outstanding=16, destination="/user/{name}/queue/bench")
@_between
def durable_command(**given: Any) -> None:
    """Send from N users to as many others, with receipts.

    Each receipt lets its sender, who keeps --outstanding on their way, send the next message. At the end all
    that was receipted must have arrived, once and in order. {name} in the destination is the receiver.
    """
    _drive(direct.run_durable, _to_each(given))


@bench.command("connect")
@options(
    connections=0, outstanding=32, destination="/topic/bench", without=("connections", "body_bytes", "outstanding")
)
@click.option(
    "--outstanding",
    "--connections",
    "-w",
    "-c",
    "outstanding",
    type=click.IntRange(1, 100_000),
    metavar="N",
    default=32,
    show_default=True,
    help="How many are in the making at once.",
)
def connect_command(**given: Any) -> None:
    """Connect, subscribe, close, over and over."""
    _drive(connecting.run, given | {"connections": 0, "body_bytes": 0})


@bench.command("idle")
@options(
    connections=1000,
    outstanding=1,
    destination="/topic/bench",
    without=("duration", "body_bytes", "outstanding"),
)
@click.option(
    "--hold",
    "--duration",
    "-d",
    "hold",
    type=click.FloatRange(0.1, 3600),
    metavar="S",
    default=5.0,
    show_default=True,
    help="Seconds to hold them.",
)
@click.option("--pid", type=int, default=None, metavar="PID", help="The server's process on this machine.")
def idle_command(hold: float, pid: int | None, **given: Any) -> None:
    """Open N connections with a subscription each, and hold them.

    With --pid it tells the server's memory for each.
    """
    filled = {"duration": hold, "body_bytes": 0, "outstanding": 1}
    _drive(functools.partial(idle.run, pid=pid), given | filled)


def _to_each(given: dict[str, Any]) -> dict[str, Any]:
    if "{name}" not in given["destination"]:
        raise click.BadParameter(
            "it must hold {name}, which stands for the receiver: /user/{name}/queue/x", param_hint="--destination"
        )
    return given


def _drive(scenario: Scenario, given: dict[str, Any]) -> None:
    json_file, plot_file = given.pop("json_file"), given.pop("plot_file")
    load = Load(**given)
    for file in (json_file, plot_file):
        if file and not file.absolute().parent.is_dir():
            raise click.ClickException(f"{file} cannot be written: there is no folder {file.absolute().parent}")
    try:
        if plot_file:
            plot.require(plot_file)
        _check_files(load)
        done = _run_loop(scenario(load, progress_line(quiet=load.quiet)))
    except PostroomError as error:
        raise click.ClickException(str(error)) from None
    click.echo("\n".join(lines(done)))
    if json_file:
        save(done, json_file)
    if plot_file:
        plot.draw(done, plot_file)
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
