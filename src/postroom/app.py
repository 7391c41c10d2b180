"""The application: handlers and channels in code, and the server around a node."""

import asyncio
import contextlib
import importlib
import signal
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from postroom.auth import Authentication
from postroom.channel import Channel, ChannelRegistry
from postroom.config import Settings
from postroom.errors import ConfigurationError
from postroom.handlers import Handler, Handlers
from postroom.http.health import health_routes
from postroom.node import Node

_log = structlog.get_logger("postroom.app")


class Postroom:
    """What an application brings: its handlers and, beside those of `postroom.toml`, its channels.

    ::

        app = Postroom()

        @app.handler("/orders/{id}")
        async def order(request: Request) -> None: ...

    Served by `postroom serve module:app`.
    """

    def __init__(self, channels: Iterable[Channel] = ()) -> None:
        self.channels = tuple(channels)
        ChannelRegistry(self.channels)  # a contradiction is refused here, not at the first message
        self.handlers = Handlers()

    def handler(self, path: str) -> Callable[[Handler], Handler]:
        """Serve SENDs to the application destination `path`, an Ant-style pattern without the prefix."""

        def register(function: Handler) -> Handler:
            self.handlers.add(path, function)
            return function

        return register


def load(name: str) -> Postroom:
    """The application that `module:attribute` names. Raises ConfigurationError."""
    module, colon, attribute = name.partition(":")
    if not colon or not module or not attribute:
        raise ConfigurationError(f"{name!r} does not name an application: write module:attribute")
    sys.path.insert(0, "")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"{name!r}: {error}") from error
    if not isinstance(found, Postroom):
        raise ConfigurationError(f"{name!r} is no Postroom application: {module} has no Postroom named {attribute}")
    return found


Routes = Callable[[Node], Sequence[BaseRoute]]
"""More HTTP routes, made once the node is open."""
