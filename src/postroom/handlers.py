"""Application handlers: functions that serve `/app/...` destinations."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import msgspec
from msgspec import Struct

from postroom.destination import Pattern
from postroom.errors import ConfigurationError, UnknownDestination
from postroom.identity import Principal, SessionId

_NONE: Final[Mapping[str, str]] = {}


class Replies(Protocol):
    """What a handler may send; the gateway of the session that asks."""

    async def send(self, destination: str, headers: Mapping[str, str], body: bytes) -> None:
        """To any destination but the application's own, as the server."""
        ...

    async def send_to_user(self, name: str, headers: Mapping[str, str], body: bytes) -> None:
        """To `name` of the user who asks."""
        ...

    def reply(self, name: str, headers: Mapping[str, str], body: bytes) -> int:
        """To the asking session's subscriptions to its user's `name`."""
        ...


class Request(Struct, frozen=True):
    """A SEND or SUBSCRIBE to an application destination.

    `path` is what stands behind the prefix, `variables` its `{x}`; the body of a SUBSCRIBE is empty.

    What is sent carries no `sender`: it comes from the server, whom no channel forbids anything. A payload of bytes
    goes as it is, a string as `text/plain`, all else as JSON; a `content-type` among `headers` wins.
    """

    path: str
    variables: Mapping[str, str]
    principal: Principal
    session: SessionId
    headers: Mapping[str, str]
    body: bytes
    replies: Replies

    async def send(self, destination: str, payload: Any, headers: Mapping[str, str] = _NONE) -> None:
        """Send to a topic, a queue or a user (`/user/{name}/queue/...`): stored on return where its channel is durable.

        Raises Refused, or StoreUnavailable.
        """
        await self.replies.send(destination, *_encoded(payload, headers))

    async def send_to_user(self, name: str, payload: Any, headers: Mapping[str, str] = _NONE) -> None:
        """Send to `name` (`/queue/reply`) of the user who asks, on all its devices; as `send`."""
        await self.replies.send_to_user(name, *_encoded(payload, headers))

    def reply(self, name: str, payload: Any, headers: Mapping[str, str] = _NONE) -> int:
        """Send to the session that asks and no other, where it subscribes to `/user` + `name`; how many do.

        At most once and never stored, whatever the channel says: a session that is gone has nobody to keep it for.
        """
        return self.replies.reply(name, *_encoded(payload, headers))


Handler = Callable[[Request], Any]
"""Serves a request; may be a coroutine function. Frames of the session that come later wait for it."""


class Handlers:
    """The handlers of a node, for SENDs and for SUBSCRIBEs; the first match first."""

    __slots__ = ("_sends", "_subscribes")

    def __init__(self) -> None:
        self._sends: list[tuple[Pattern, Handler]] = []
        self._subscribes: list[tuple[Pattern, Handler]] = []

    def add(self, path: str, handler: Handler) -> None:
        """Serve SENDs to `path`, an Ant-style pattern behind the application prefix, with `handler`."""
        self._sends.append((_checked(path, handler), handler))

    def add_subscription(self, path: str, handler: Handler) -> None:
        """Answer SUBSCRIBEs to `path` with what `handler` returns."""
        self._subscribes.append((_checked(path, handler), handler))

    def check(self, path: str) -> None:
        """Raise UnknownDestination where no handler serves SENDs to `path`."""
        if not any(pattern.matches(path) for pattern, _ in self._sends):
            raise UnknownDestination(f"no handler serves {path!r}")

    def invoke(self, request: Request) -> Any:
        """Call the handler of a SEND; awaitable if it is a coroutine. Raises UnknownDestination."""
        return _call(self._sends, request)

    def subscribe(self, request: Request) -> Any:
        """Call the handler of a SUBSCRIBE: the payload of its answer, or an awaitable of it; None: no answer.

        Raises UnknownDestination.
        """
        return _call(self._subscribes, request)


def encode_payload(payload: Any) -> tuple[Mapping[str, str], bytes]:
    """The headers and body of what a handler returned."""
    return _encoded(payload, _NONE)


def _checked(path: str, handler: Handler) -> Pattern:
    if not path.startswith("/"):
        raise ConfigurationError(f"handler path {path!r} must start with '/'")
    if len(inspect.signature(handler).parameters) != 1:
        raise ConfigurationError(f"the handler of {path!r} must take one argument, the request")
    return Pattern(path)


def _call(handlers: list[tuple[Pattern, Handler]], request: Request) -> Any:
    for pattern, handler in handlers:
        variables = pattern.variables(request.path)
        if variables is not None:
            return handler(msgspec.structs.replace(request, variables=variables))
    raise UnknownDestination(f"no handler serves {request.path!r}")


def _encoded(payload: Any, headers: Mapping[str, str]) -> tuple[Mapping[str, str], bytes]:
    if isinstance(payload, bytes | bytearray | memoryview):
        return headers, bytes(payload)
    if isinstance(payload, str):
        return {"content-type": "text/plain;charset=UTF-8", **headers}, payload.encode()
    return {"content-type": "application/json", **headers}, msgspec.json.encode(payload)
