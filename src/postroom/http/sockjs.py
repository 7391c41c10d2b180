"""The HTTP side of SockJS: its greeting and `/info` (SockJS protocol 0.3). The fallback transports come later."""

import secrets
from collections.abc import Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from postroom.sockjs.info import info

_NO_CACHE: Final = "no-store, no-cache, no-transform, must-revalidate, max-age=0"
_YEAR: Final = 31_536_000


def sockjs_routes(prefix: str, origins: Sequence[str]) -> list[BaseRoute]:
    """The routes below `prefix`. Pages of the server's own origin and of `origins` may read `/info`."""

    async def greeting(request: Request) -> Response:
        return PlainTextResponse("Welcome to SockJS!\n", media_type="text/plain; charset=UTF-8")

    async def show(request: Request) -> Response:
        headers = _cors(request, origins)
        if request.method == "OPTIONS":
            headers |= {
                "Access-Control-Allow-Methods": "OPTIONS, GET",
                "Access-Control-Max-Age": str(_YEAR),
                "Cache-Control": f"public, max-age={_YEAR}",
            }
            return Response(status_code=204, headers=headers)
        headers["Cache-Control"] = _NO_CACHE
        body = info(secrets.randbits(32), websocket=True, cookie_needed=False)
        return Response(body, media_type="application/json; charset=UTF-8", headers=headers)

    return [
        Route(prefix, greeting),
        Route(f"{prefix}/", greeting),
        Route(f"{prefix}/info", show, methods=["GET", "OPTIONS"]),
    ]


def _cors(request: Request, origins: Sequence[str]) -> dict[str, str]:
    headers = {"Vary": "Origin"}
    origin = request.headers.get("origin")
    own = origin is not None and origin.partition("://")[2] == request.headers.get("host")
    if origin is not None and (own or origin in origins or "*" in origins):
        headers["Access-Control-Allow-Origin"] = origin
        if "*" not in origins or own or origin in origins:
            headers["Access-Control-Allow-Credentials"] = "true"
        asked = request.headers.get("access-control-request-headers")
        if asked:
            headers["Access-Control-Allow-Headers"] = asked
    return headers
