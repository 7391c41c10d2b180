"""The application: handlers and channels in code, and the server around a node."""

import asyncio
import contextlib
import gc
import importlib
import os
import signal
import socket
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final, NamedTuple

import structlog
import uvicorn
from msgspec import structs

from postroom.auth import Authentication, Authenticator
from postroom.auth.cookie import CookieAuthenticator
from postroom.auth.dev import DevAuthenticator
from postroom.auth.header import HeaderAuthenticator
from postroom.auth.jwt import JwtAuthenticator
from postroom.channel import Channel, ChannelRegistry
from postroom.config import Settings, check_authentication, check_made, settings_from
from postroom.errors import ConfigurationError, PostroomError
from postroom.handlers import Handler, Handlers
from postroom.hosting import Host
from postroom.http.health import status_of
from postroom.http.siblings import Siblings
from postroom.listeners import BACKLOG, Doors, open_doors, stomp_listener, tls_context
from postroom.logs import join_host, without_passwords
from postroom.node import Node, backplane_url
from postroom.site import Routes, Site
from postroom.transport.asgi import Receive, Scope, Send
from postroom.transport.deflate import Compression
from postroom.transport.front import FrontLimits, front

_log = structlog.get_logger("postroom.app")

_SWITCH_SECONDS: Final = 1e-5
# The store's thread asks for Python's lock after this time. At the usual 5 ms a busy event loop, which lets go of
# the lock at each turn and takes it again at once, starves it for seconds.

DEVELOPMENT: Final = "DEVELOPMENT MODE: every client is who it says it is; never serve this to a network"


class Postroom:
    """What an application brings: its handlers and, beside those of `postroom.toml`, its channels.

    ::

        app = Postroom()

        @app.handler("/orders/{id}")
        async def order(request: Request) -> None: ...

    Served by `postroom serve module:app`, where `settings` stand in for the defaults. It is also an ASGI
    application, for any ASGI server or mounted inside another application: then `settings` count alone, or those
    of `postroom.toml` and `POSTROOM_*` where none are given. `authentication` counts in place of what the settings
    name. A node lives on one event loop: one Postroom serves one.
    """

    def __init__(
        self,
        channels: Iterable[Channel] = (),
        *,
        settings: Settings | None = None,
        authentication: Authentication | None = None,
    ) -> None:
        self.channels = tuple(channels)
        ChannelRegistry(self.channels)  # a contradiction is refused here, not at the first message
        self.handlers = Handlers()
        self.settings = settings
        self.authentication = authentication
        self._host = Host(self._open)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve ASGI: lifespan, HTTP and WebSocket."""
        if scope["type"] == "lifespan":
            await self._host.lifespan(receive, send)
        else:
            await self._host.serve(scope, receive, send)

    def lifespan(self, parent: object = None) -> AbstractAsyncContextManager[None]:
        """Within it the node is open; at its end it is drained. For the lifespan of the application around it.

        Frameworks do not run the lifespans of what is mounted: `FastAPI(lifespan=app.lifespan)` does. Raises
        ConfigurationError, StoreUnavailable or OSError.
        """
        return self._host.opened()

    @contextlib.asynccontextmanager
    async def _open(self) -> AsyncIterator[Site]:
        join_host()
        settings = self.settings if self.settings is not None else settings_from(os.environ)
        check_made(settings)
        if self.authentication is None:
            check_authentication(settings)
        if settings.dev:
            _log.warning(DEVELOPMENT)
        if backplane_url(settings):
            # Several worker processes read the same settings, and each is a node.
            settings = structs.replace(settings, node_id=f"{settings.node_id}-{os.getpid()}")
        settings, authentication = _completed(settings, self, None)
        sys.setswitchinterval(_SWITCH_SECONDS)
        async with Node(settings, authentication, handlers=self.handlers) as node:
            yield Site(settings, node)

    def handler(self, path: str) -> Callable[[Handler], Handler]:
        """Serve SENDs to the application destination `path`, an Ant-style pattern without the prefix."""

        def register(function: Handler) -> Handler:
            self.handlers.add(path, function)
            return function

        return register

    def subscription(self, path: str) -> Callable[[Handler], Handler]:
        """Answer SUBSCRIBEs to the application destination `path` with what the function returns, once each."""

        def register(function: Handler) -> Handler:
            self.handlers.add_subscription(path, function)
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
    except PostroomError:
        raise
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"{name!r}: {error}") from error
    except Exception as error:
        raise ConfigurationError(f"{name!r} cannot be imported: {_told(error)}") from error
    if not isinstance(found, Postroom):
        raise ConfigurationError(f"{name!r} is no Postroom application: {module} has no Postroom named {attribute}")
    return found


def _told(error: Exception) -> str:
    """What was raised, and where in the application."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {error.msg}"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}:{frame.lineno}: {type(error).__name__}: {error}"


class Place(NamedTuple):
    """What a worker is given by who started it: open sockets, who its siblings are, and whom to tell that it serves."""

    doors: Doors
    siblings: Siblings
    serving: Callable[[], None]


def serve(
    settings: Settings,
    app: Postroom | None = None,
    *,
    authentication: Authentication | None = None,
    routes: Routes | None = None,
    place: Place | None = None,
) -> None:
    """Run a node until SIGTERM or SIGINT, then drain it; in its `place`, where it is one of several workers. Blocks.

    Raises ConfigurationError, StoreUnavailable, or OSError where the port cannot be had.
    """
    app = app if app is not None else Postroom()
    sys.setswitchinterval(_SWITCH_SECONDS)
    _raise_file_limit()
    # What is there at the start stays; what comes with messages is freed by its last reference. A full collection
    # over the objects of a hundred thousand connections takes a second: not for every few thousand messages.
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)
    loop_factory = _loop_factory()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(_serve(settings, app, authentication, routes, place))


def _raise_file_limit() -> None:
    """Each connection is an open file: take as many as the system lets this process have."""
    if sys.platform != "win32":
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        _log.debug("open files", soft=soft, hard=hard)


async def _serve(
    settings: Settings,
    app: Postroom,
    authentication: Authentication | None,
    routes: Routes | None,
    place: Place | None,
) -> None:
    settings, who = _completed(settings, app, authentication)
    async with Node(settings, who, handlers=app.handlers) as node:
        config = _uvicorn_config(settings, Site(settings, node, routes, place.siblings if place is not None else None))
        doors = place.doors if place is not None else open_doors(settings)
        _log.info(
            "serving",
            url=_url(settings, doors.web),
            stomp=settings.endpoints.stomp,
            sockjs=settings.endpoints.sockjs,
            store=without_passwords(settings.store),
        )
        async with _known_to(place, node), stomp_listener(settings, node, doors.stomp) as others:
            serving = place.serving if place is not None else _nobody_waits
            await _Server(config, node, others, serving).serve(sockets=[doors.web])


def _completed(
    settings: Settings, app: Postroom, authentication: Authentication | None
) -> tuple[Settings, Authentication]:
    """The settings with the application's channels, and who is believed."""
    if app.channels:
        settings = structs.replace(settings, channels=(*settings.channels, *app.channels))
    for given in (authentication, app.authentication):
        if given is not None:
            return settings, given
    return settings, authentication_of(settings)


def _known_to(place: Place | None, node: Node) -> AbstractAsyncContextManager[None]:
    if place is None:
        return contextlib.nullcontext()
    return place.siblings.answering(lambda: status_of(node.metrics, node.gauges, node.reasons_not_ready))


def _nobody_waits() -> None:
    """Whoever started this process looks for its port."""


def _url(settings: Settings, door: socket.socket) -> str:
    if settings.unix_socket is not None:
        return f"unix:{settings.unix_socket}"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http{'s' if settings.tls is not None else ''}://{host}:{door.getsockname()[1]}"


def authentication_of(settings: Settings) -> Authentication:
    """The authenticators that the settings name, in their order; that of development last."""
    auth = settings.auth
    found: list[Authenticator] = []
    if auth.jwt is not None:
        named = auth.jwt
        found.append(
            JwtAuthenticator(
                algorithms=named.algorithms,
                key=_key(named.key, named.key_file),
                jwks_file=named.jwks_file,
                audience=named.audience,
                issuer=named.issuer,
                user_claim=named.user_claim,
                roles_claim=named.roles_claim,
                leeway_seconds=named.leeway_seconds,
            )
        )
    if auth.cookie is not None:
        cookie = auth.cookie
        found.append(
            CookieAuthenticator(cookie.secret, cookie_name=cookie.name, max_age_seconds=cookie.max_age_seconds)
        )
    if auth.header is not None:
        found.append(HeaderAuthenticator(auth.header.name, auth.header.trusted))
    if settings.dev:
        found.append(DevAuthenticator())
    return Authentication(found)


def _key(key: str | None, file: str | None) -> str | None:
    if file is None:
        return key
    try:
        return Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"auth.jwt: key-file {file} cannot be read: {error.strerror}") from error


def _uvicorn_config(settings: Settings, site: Site) -> uvicorn.Config:
    http = front(
        site.route,
        FrontLimits(
            head_seconds=settings.limits.request_seconds,
            max_message_bytes=site.max_message_bytes,
            compression=_compression(settings),
        ),
    )
    tls = settings.tls
    if tls is not None:
        tls_context(tls)  # what is wrong with it is told in one line
    return uvicorn.Config(
        site.web,
        http=http,  # type: ignore[arg-type]
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # WebSockets see the proxy's address too: authentication must not depend on the transport
        timeout_graceful_shutdown=5,
        backlog=BACKLOG,
        ssl_certfile=tls.certificate if tls is not None else None,
        ssl_keyfile=tls.key if tls is not None else None,
    )


def _compression(settings: Settings) -> Compression | None:
    terms = settings.compression
    if not terms.enabled:
        return None
    return Compression(window_bits=terms.window_bits, level=terms.level, min_bytes=terms.min_bytes)


class _Server(uvicorn.Server):
    """uvicorn, but it drains the node before it stops, and leaves the process's end to the caller.

    `serving` is called once it listens; `others` are closed with its own listeners.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        node: Node,
        others: Sequence[asyncio.AbstractServer],
        serving: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._node, self._others, self._serving = node, others, serving

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self._serving()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Stop at SIGINT and SIGTERM. uvicorn's own would raise them again before the node is closed."""
        stop = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in stop.items():
                signal.signal(number, handler)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let nobody new in, move the clients away, then stop."""
        for server in (*self.servers, *self._others):
            server.close()
        await self._node.drain()
        await super().shutdown(sockets)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # Windows
        return None
    return uvloop.new_event_loop
