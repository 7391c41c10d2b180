"""What an open node serves at its paths, whatever server carries it."""

from collections.abc import Callable, Sequence
from typing import Final

from starlette.applications import Starlette
from starlette.routing import BaseRoute

from postroom.config import Settings
from postroom.http.health import health_routes
from postroom.http.sockjs import sockjs_routes
from postroom.node import Node
from postroom.transport.asgi import Receive, Scope, Send, route_path, serve_websocket
from postroom.transport.base import Endpoint, Route
from postroom.transport.sockjs import Heartbeats, sockjs_route

Routes = Callable[[Node], Sequence[BaseRoute]]
"""More HTTP routes, made once the node is open."""

_ESCAPED: Final = 6  # SockJS writes a byte as six characters at worst: \u001f


class Site:
    """An ASGI application for HTTP and WebSockets: `route` and `web` are its parts for a server of our own.

    Its paths are those below a mount; where it is mounted, the scope's `root_path` says.
    """

    def __init__(self, settings: Settings, node: Node, routes: Routes | None = None) -> None:
        endpoints, limits = settings.endpoints, settings.limits
        self.node = node
        self.route = _route(settings, node.endpoint())
        self.web = Starlette(
            routes=[
                *health_routes(node.metrics, node.gauges, node.reasons_not_ready),
                *sockjs_routes(endpoints.sockjs, settings.origins),
                *(routes(node) if routes is not None else ()),
            ]
        )
        # A message of the largest body with a full head, and what SockJS makes of it when every byte is escaped.
        self.max_message_bytes = _ESCAPED * (limits.max_message_bytes + 8 * limits.max_header_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or one WebSocket."""
        path = route_path(scope)
        endpoint = self.route(path) if scope["type"] == "websocket" else None
        if endpoint is None:
            await self.web(scope, receive, send)
        else:
            await serve_websocket(scope, receive, send, endpoint, path=path, max_bytes=self.max_message_bytes)


def _route(settings: Settings, endpoint: Endpoint) -> Route:
    plain, beats = settings.endpoints.stomp, Heartbeats()
    below_prefix = sockjs_route(settings.endpoints.sockjs, endpoint, beats)

    def route(path: str) -> Endpoint | None:
        return endpoint if path == plain else below_prefix(path)

    return route
