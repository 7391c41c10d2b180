"""Application handlers: functions that serve `/app/...` destinations."""

import inspect
from collections.abc import Awaitable, Callable, Mapping

from msgspec import Struct

from postroom.destination import Pattern
from postroom.errors import ConfigurationError, UnknownDestination
from postroom.identity import Principal, SessionId


class Request(Struct, frozen=True):
    """A SEND to an application destination: `path` is what stands behind the prefix, `variables` its `{x}`."""

    path: str
    variables: Mapping[str, str]
    principal: Principal
    session: SessionId
    headers: Mapping[str, str]
    body: bytes


Handler = Callable[[Request], Awaitable[None] | None]
"""Serves a request; may be a coroutine function. Frames of the session that come later wait for it."""


class Handlers:
    """The handlers of a node, the first match first."""

    __slots__ = ("_handlers",)

    def __init__(self) -> None:
        self._handlers: list[tuple[Pattern, Handler]] = []

    def add(self, path: str, handler: Handler) -> None:
        """Serve `path`, an Ant-style pattern behind the application prefix, with `handler`."""
        if not path.startswith("/"):
            raise ConfigurationError(f"handler path {path!r} must start with '/'")
        if len(inspect.signature(handler).parameters) != 1:
            raise ConfigurationError(f"the handler of {path!r} must take one argument, the request")
        self._handlers.append((Pattern(path), handler))

    def invoke(
        self, path: str, principal: Principal, session: SessionId, headers: Mapping[str, str], body: bytes
    ) -> Awaitable[None] | None:
        """Call the handler of `path`; awaitable if it is a coroutine. Raises UnknownDestination."""
        for pattern, handler in self._handlers:
            variables = pattern.variables(path)
            if variables is not None:
                return handler(Request(path, variables, principal, session, headers, body))
        raise UnknownDestination(f"no handler serves {path!r}")
