"""The command line."""

import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import click
import structlog

from postroom import logs
from postroom.config import Settings, check_authentication, load, placed
from postroom.errors import ConfigurationError, MissingExtra, NodeReplaced, PostroomError

_F = TypeVar("_F", bound=Callable[..., Any])

_log = structlog.get_logger("postroom")


class _Group(click.Group):
    """Says what went wrong in one line, not in a traceback."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except (PostroomError, OSError) as error:
            self._say(error, context)
        except ExceptionGroup as group:  # what ends a node comes out of its task group
            if group.split((PostroomError, OSError))[1] is not None:
                raise
            self._say(_first(group), context)
        except KeyboardInterrupt:
            context.exit(130)

    def _say(self, error: Exception, context: click.Context) -> None:
        click.echo(f"postroom: {error}", err=True)
        context.exit(2 if isinstance(error, ConfigurationError | NodeReplaced) else 1)

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted([*super().list_commands(context), "bench"])

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name == "bench":
            return _bench()
        return super().get_command(context, name)


def _first(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _bench() -> click.Command:
    try:
        from postroom.bench.cli import bench
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("postroom"):
            raise
        raise MissingExtra("postroom bench", "bench") from error
    return bench


@click.group(cls=_Group)
@click.version_option(version("postroom"), prog_name="postroom")
def main() -> None:
    """Postroom: a WebSocket messaging server. Messages reach their users, also those who are away."""


def _server_options(command: _F) -> _F:
    for option in (
        click.option(
            "--routing",
            type=click.Choice(["broadcast", "directory", "subject"]),
            help="How user messages find their nodes (directory).",
        ),
        click.option("--backplane", metavar="URL", help="What carries messages between nodes; the store, if it can."),
        click.option(
            "--store",
            metavar="URL",
            help="Where logs are kept: sqlite:///FILE, redis://HOST, postgresql://HOST/DB or memory:.",
        ),
        click.option("--node-id", metavar="ID", help="This node's name."),
        click.option("--stomp-port", type=click.IntRange(0, 65535), help="A port for STOMP over TCP (none)."),
        click.option("--unix-socket", metavar="PATH", help="A Unix socket to listen on instead of host and port."),
        click.option("--port", type=click.IntRange(0, 65535), help="The port to listen on (8080)."),
        click.option("--host", metavar="ADDRESS", help="The address to listen on (127.0.0.1)."),
        click.option(
            "--config",
            type=click.Path(path_type=Path),
            help="The settings' file (postroom.toml, if there is one).",
        ),
    ):
        command = option(command)
    return command


def _settings(config: Path | None, base: Settings | None = None, *, worker: str = "", **overrides: Any) -> Settings:
    settings = load(_named(config), os.environ, overrides, base=base)
    logs.configure(settings.log.level, settings.log.format, worker=worker)
    return settings


def _named(config: Path | None) -> Path | None:
    named = os.environ.get("POSTROOM_CONFIG")
    return Path(named) if config is None and named else config


@main.command()
@click.argument("application", metavar="[APP]", required=False)
@_server_options
@click.option("--workers", type=click.IntRange(1, 64), help="So many processes that share the port (1).")
@click.option("--dev", is_flag=True, default=None, help="Development only: clients say who they are, no password.")
@click.pass_context
def serve(context: click.Context, /, application: str | None, config: Path | None, **overrides: Any) -> None:
    """Run a node, or several that share the port. APP is an application of yours: module:attribute."""
    from postroom import app, workers

    named = app.load(application) if application is not None else app.Postroom()
    settings = _settings(config, named.settings, **overrides)
    if named.authentication is None:
        check_authentication(settings)
    _check(settings, _named(config), authenticates=named.authentication is None)
    if settings.dev:
        _log.warning(app.DEVELOPMENT)
    if workers.needed(settings):
        context.exit(workers.run(settings, application, _named(config), overrides))
    if (folder := workers.left_behind(settings)) is not None:
        _log.warning("messages of several workers are not served: --store embedded: does", folder=str(folder))
    app.serve(settings, named)


@main.command("worker", hidden=True)
@click.argument("name")
def worker(name: str) -> None:
    """Run the worker NAME, which `serve` started; standard input has its settings."""
    from postroom import app, workers

    errand = workers.read()
    place = errand.place()
    named = app.load(errand.application) if errand.application is not None else app.Postroom()
    overrides = {**errand.overrides, "node_id": name}
    settings = _settings(errand.config_file, named.settings, worker=name, **overrides)
    app.serve(settings, named, place=place)


@main.command()
@_server_options
@click.option(
    "--nodes",
    type=click.IntRange(1, 16),
    default=1,
    help="So many nodes behind one port, on a Valkey of their own (1).",
)
def demo(config: Path | None, nodes: int, **overrides: Any) -> None:
    """Run the chat page, for a first look, on one node or several. No password is asked."""
    from postroom import demo as chat

    settings = _settings(config, **overrides, workers=1)
    _log.warning("DEMO: users log in by name alone; never serve this to a network")
    if nodes == 1:
        chat.run(settings)
    else:
        chat.run_nodes(settings, nodes, config)


@main.command("demo-node", hidden=True)
def demo_node() -> None:
    """Run one of the nodes that `demo` started; the environment has its settings."""
    from postroom import demo as chat

    chat.run(_settings(None))


@main.command("check-config")
@click.option("--config", type=click.Path(path_type=Path), help="The settings' file (postroom.toml, if there is one).")
@click.option("--connect", is_flag=True, help="Try the store, the directory and the backplane too.")
def check_config(config: Path | None, connect: bool) -> None:
    """Say whether the settings are right, and what they come to. Keys are read; only --connect reaches servers."""
    from postroom.channel import ChannelRegistry

    settings = load(_named(config), os.environ, {})
    check_authentication(settings)
    _check(settings, _named(config))
    several = f", {settings.workers} workers" if settings.workers > 1 else ""
    store = logs.without_passwords(settings.store)
    click.echo(f"ok: {settings.node_id}{several} on {settings.host}:{settings.port}, store {store}")
    for channel in ChannelRegistry(settings.channels).channels:
        kept = "durable" if channel.durable else "transient"
        click.echo(f"  {channel.code:12} {kept:10} {channel.destination}  {channel.description}")
    if connect:
        _try_engines(settings)


def _try_engines(settings: Settings) -> None:
    """Say what is missing at each; exit with 1 where a node would not work."""
    import asyncio

    from postroom import trial

    logs.configure("error", settings.log.format)  # what is found is said below
    reports = asyncio.run(trial.try_all(settings))
    for report in reports:
        click.echo("\n".join(report.lines))
    if not all(report.well for report in reports):
        raise SystemExit(1)


def _check(settings: Settings, config: Path | None, *, authenticates: bool = True) -> None:
    """Make what a node is made of, and open nothing. Raises ConfigurationError, with the line that is wrong."""
    from postroom import workers
    from postroom.app import authentication_of
    from postroom.backplane.base import open_backplane
    from postroom.listeners import tls_context
    from postroom.node import backplane_url
    from postroom.store import directory_of, open_store

    if authenticates:
        with placed(config, "auth"):
            authentication_of(settings)
    if settings.tls is not None:
        with placed(config, "tls"):
            tls_context(settings.tls)
    if workers.needed(settings):
        with placed(config, "store"):
            workers.check(settings)
        return
    with placed(config, "store"):
        store = open_store(settings.store)
    if url := backplane_url(settings):
        with placed(config, "backplane"):
            open_backplane(url)
        with placed(config, "store"):
            directory_of(store, settings.store)


__all__ = ["main"]
