"""What an open node serves at its paths, whatever server carries it."""

from collections.abc import Callable, Sequence
from typing import Final

from starlette.applications import Starlette
from starlette.routing import BaseRoute

from postroom.config import Settings
from postroom.http.health import health_routes
from postroom.http.siblings import Siblings
from postroom.node import Node
from postroom.sockjs import Options, SockJS
from postroom.transport.asgi import Receive, Scope, Send, route_path, serve_websocket
from postroom.transport.base import Endpoint, Route

Routes = Callable[[Node], Sequence[BaseRoute]]
"""More HTTP routes, made once the node is open."""

_PENDING: Final = 4  # the outbox cuts a client first; this bounds what is written past it
_ESCAPED: Final = 6  # SockJS writes a byte as six characters at worst: \u001f


class Site:
    """An ASGI application for HTTP and WebSockets: `route` and `web` are its parts for a server of our own.

    Its paths are those below a mount; where it is mounted, the scope's `root_path` says.
    """

    def __init__(
        self, settings: Settings, node: Node, routes: Routes | None = None, siblings: Siblings | None = None
    ) -> None:
        limits = settings.limits
        # A message of the largest body with a full head, and what SockJS makes of it when every byte is escaped.
        self.max_message_bytes = _ESCAPED * (limits.max_message_bytes + 8 * limits.max_header_bytes)
        self.node = node
        web = Starlette(
            routes=[
                *health_routes(node.metrics, node.gauges, node.reasons_not_ready, siblings),
                *(routes(node) if routes is not None else ()),
            ]
        )
        self.web = SockJS(
            settings.endpoints.sockjs,
            node.endpoint(),
            _options(settings, body_bytes=self.max_message_bytes),
            identify=node.identify,
            elsewhere=node.roaming,
            otherwise=web,
        )
        self.route = _route(settings.endpoints.stomp, node.endpoint(), self.web)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or one WebSocket."""
        path = route_path(scope)
        endpoint = self.route(path) if scope["type"] == "websocket" else None
        if endpoint is None:
            await self.web(scope, receive, send)
        else:
            await serve_websocket(scope, receive, send, endpoint, path=path, max_bytes=self.max_message_bytes)


def _options(settings: Settings, *, body_bytes: int) -> Options:
    terms = settings.sockjs
    return Options(
        origins=settings.origins,
        websocket=terms.websocket,
        jsonp=terms.jsonp,
        iframe=terms.iframe,
        cookie=terms.cookie,
        client_url=terms.client_url,
        heartbeat_seconds=terms.heartbeat_seconds,
        disconnect_seconds=terms.disconnect_seconds,
        response_bytes=terms.response_bytes,
        prove_seconds=terms.prove_seconds,
        body_bytes=body_bytes,
        pending_bytes=_PENDING * settings.limits.write_buffer_bytes,
    )


def _route(plain: str, endpoint: Endpoint, sockjs: SockJS) -> Route:
    def route(path: str) -> Endpoint | None:
        return endpoint if path == plain else sockjs.route(path)

    return route
