"""The chat page's routes: login, the page alone or twice, and the form endpoints of the well-known Spring example."""

import re
from collections.abc import Awaitable, Callable, Sequence
from html import escape
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlencode

import msgspec
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from postroom.auth.cookie import CookieAuthenticator
from postroom.demo.panes import PaneAuthenticator
from postroom.destination import Destinations, Prefixes, user_name
from postroom.errors import PostroomError, Refused
from postroom.http.post import Post
from postroom.identity import UserName

_STATIC: Final = Path(__file__).with_name("static")
_MAX_FORM: Final = 65_536
_REPLY: Final = "/topic/reply"
_DESTINATIONS: Final = Destinations(Prefixes())
_POLICY: Final = "default-src 'self'; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'self'"
_HEADERS: Final = {
    "Content-Security-Policy": f"{_POLICY}; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_PANE_HEADERS: Final = {**_HEADERS, "Content-Security-Policy": f"{_POLICY}; frame-ancestors 'self'"}

_TWO: Final = {"left": "anna", "right": "ben"}

Endpoint = Callable[[Request], Awaitable[Response]]


class ChatPage:
    """Serves the page to those who have logged in, and the login to the others."""

    def __init__(self, post: Post, cookies: CookieAuthenticator, panes: PaneAuthenticator) -> None:
        self._post = post
        self._cookies = cookies
        self._panes = panes
        self._chat = (_STATIC / "chat.html").read_text(encoding="utf-8")
        self._login = (_STATIC / "login.html").read_text(encoding="utf-8")
        self._two = (_STATIC / "two.html").read_text(encoding="utf-8")

    def routes(self) -> Sequence[BaseRoute]:
        """All routes of the demo."""
        return [
            Route("/", self._index, methods=["GET"]),
            Route("/two", self._side_by_side, methods=["GET"]),
            Route("/pane", self._pane, methods=["GET"]),
            Route("/login", _own(self._log_in), methods=["POST"]),
            Route("/logout", _own(self._log_out), methods=["POST"]),
            Route("/wsTemplate/sendToUser", _own(self._send), methods=["POST"]),
            Route("/wsTemplate/pullUnreadMessage", _own(self._pull), methods=["POST"]),
            Mount("/static", StaticFiles(directory=_STATIC)),
        ]

    def _who(self, request: Request) -> UserName | None:
        return self._cookies.read(request.headers.get("cookie", ""))

    async def _index(self, request: Request) -> Response:
        who = self._who(request)
        if who is None:
            return self._ask("")
        page = _filled(self._chat, user=who, view="page", pane="", to="", avoid="")
        return HTMLResponse(page, headers=_HEADERS)

    async def _side_by_side(self, request: Request) -> Response:
        asked = request.query_params
        try:
            left, right = (user_name(asked.get(side, name).strip()) for side, name in _TWO.items())
        except Refused as error:
            return self._ask(str(error))
        if left == right:
            return self._ask("Two people need two names.")
        sources = {"left_pane": _pane_of(left, right), "right_pane": _pane_of(right, left)}
        return HTMLResponse(_filled(self._two, left=left, right=right, **sources), headers=_HEADERS)

    async def _pane(self, request: Request) -> Response:
        asked = request.query_params
        try:
            who, to = user_name(asked.get("name", "")), user_name(asked.get("to", ""))
        except Refused as error:
            return PlainTextResponse(str(error), 400)
        avoid = asked.get("avoid", "")
        page = _filled(self._chat, user=who, view="pane", pane=self._panes.issue(who), to=to, avoid=avoid)
        return HTMLResponse(page, headers=_PANE_HEADERS)

    def _ask(self, problem: str) -> Response:
        page = _filled(self._login, problem=problem, **_TWO)
        return HTMLResponse(page, 400 if problem else 200, headers=_HEADERS)

    async def _log_in(self, request: Request) -> Response:
        form = await _form(request)
        try:
            name = user_name(_text(form, "username").strip())
        except Refused as error:
            return self._ask(str(error))
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            self._cookies.cookie_name,
            self._cookies.issue(name),
            max_age=int(self._cookies.max_age_seconds),
            httponly=True,
            samesite="lax",
        )
        return answer

    async def _log_out(self, request: Request) -> Response:
        answer = RedirectResponse("/", 303)
        answer.delete_cookie(self._cookies.cookie_name, httponly=True, samesite="lax")
        return answer

    async def _send(self, request: Request) -> Response:
        who = self._who(request)
        if who is None:
            return PlainTextResponse("log in first", 401)
        form = await _form(request)
        content = f"{who} say: {_text(form, 'msg')}"
        try:
            receiver = user_name(_text(form, "receiver"))
            await self._post.send_to_user(
                receiver,
                _REPLY,
                msgspec.json.encode({"content": content}),
                sender=who,
                headers={"content-type": "application/json"},
            )
        except PostroomError as error:
            return PlainTextResponse(str(error), 400 if isinstance(error, Refused) else 503)
        return PlainTextResponse("ok")

    async def _pull(self, request: Request) -> Response:
        who = self._who(request)
        if who is None:
            return JSONResponse({"code": "500", "msg": "log in first"})
        destination = _text(await _form(request), "destination")
        name = destination.removeprefix("/user")
        if not name.startswith("/"):
            return JSONResponse({"code": "500", "msg": "destination must be such as /topic/reply"})
        try:
            name = _DESTINATIONS.of_user(who, name).name
        except Refused as error:
            return JSONResponse({"code": "500", "msg": str(error)})
        return _Unread(self._post, who, name, request)


class _Unread(Response):
    """What waited in a mailbox. The cursor moves once the answer is written, and not if the client has gone."""

    def __init__(self, post: Post, who: UserName, name: str, request: Request) -> None:
        super().__init__(media_type="application/json")
        self._post = post
        self._who = who
        self._name = name
        self._request = request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read, answer, move the cursor."""
        try:
            async with self._post.pull(self._who, self._name) as messages:
                answer: dict[str, object] = {"code": "200"}
                if messages:
                    answer["result"] = [stored.message.body.decode(errors="replace") for stored in messages]
                whole = JSONResponse(answer)
                await send({"type": "http.response.start", "status": 200, "headers": whole.raw_headers})
                await send({"type": "http.response.body", "body": whole.body, "more_body": True})
                # Asked before the end of the answer: afterwards every client counts as gone.
                if await self._request.is_disconnected():
                    raise _Gone
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except _Gone:
            pass
        except PostroomError as error:
            await JSONResponse({"code": "500", "msg": str(error)})(scope, receive, send)


class _Gone(Exception):
    """The client did not wait for its answer."""


def _filled(page: str, **values: str) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda place: escape(values[place[1]]), page)


def _pane_of(name: UserName, to: UserName) -> str:
    return f"/pane?{urlencode({'name': name, 'to': to})}"


def _own(endpoint: Endpoint) -> Endpoint:
    """Forms of other sites are refused: a browser names the page that it sends one from."""

    async def checked(request: Request) -> Response:
        origin = request.headers.get("origin")
        if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
            return PlainTextResponse("this form came from another site", 403)
        if int(request.headers.get("content-length", "0") or 0) > _MAX_FORM:
            return PlainTextResponse(f"a form has at most {_MAX_FORM} bytes", 413)
        return await endpoint(request)

    return checked


async def _form(request: Request) -> FormData:
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        return await request.form(max_files=0, max_fields=16, max_part_size=_MAX_FORM)
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_FORM:
            break
    fields = parse_qs(body.decode(errors="replace"), keep_blank_values=True, max_num_fields=16)
    return FormData([(name, value) for name, values in fields.items() for value in values])


def _text(form: FormData, name: str) -> str:
    value = form.get(name)
    return value if isinstance(value, str) else ""
