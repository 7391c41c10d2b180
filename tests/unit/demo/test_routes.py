"""The chat page's endpoints: who may, what they answer to the letter, and that nothing is lost between."""

from collections.abc import AsyncIterator, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager

import httpx
import pytest
from starlette.applications import Starlette

from postroom.auth.cookie import CookieAuthenticator
from postroom.demo.panes import PaneAuthenticator
from postroom.demo.routes import ChatPage
from postroom.destination import UserQueue
from postroom.errors import MailboxFull, StoreUnavailable
from postroom.identity import UserName
from postroom.message import Message, StoredMessage
from postroom.position import Epoch, Position

COOKIES = CookieAuthenticator("s" * 32)
PANES = PaneAuthenticator("s" * 32, COOKIES)


class FakePost:
    """A mailbox a user, and what went wrong."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, bytes, str | None, str]] = []
        self.waiting: list[bytes] = []
        self.cleared = False
        self.error: Exception | None = None

    async def send_to_user(
        self, user: UserName, name: str, body: bytes, *, sender: UserName | None, headers: Mapping[str, str]
    ) -> None:
        if self.error is not None:
            raise self.error
        self.sent.append((user, name, body, sender, headers["content-type"]))

    @asynccontextmanager
    async def pull(self, user: UserName, name: str) -> AsyncIterator[Sequence[StoredMessage]]:
        if self.error is not None:
            raise self.error
        message = [Message(UserQueue(user, name), None, {}, body) for body in self.waiting]
        yield [StoredMessage(m, Position(Epoch(1), n), n - 1, n) for n, m in enumerate(message, 1)]
        self.cleared = True


@pytest.fixture
def post() -> FakePost:
    return FakePost()


@pytest.fixture
async def browser(post: FakePost) -> AsyncIterator[httpx.AsyncClient]:
    app = Starlette(routes=[*ChatPage(post, COOKIES, PANES).routes()])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://chat.test") as client:
        yield client


async def log_in(browser: httpx.AsyncClient, name: str = "anna") -> None:
    answer = await browser.post("/login", data={"username": name})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


async def test_a_stranger_is_asked_for_a_name(browser: httpx.AsyncClient) -> None:
    answer = await browser.get("/")
    assert 'name="username"' in answer.text
    assert "default-src 'self'" in answer.headers["content-security-policy"]


async def test_logged_in_the_page_knows_the_name_and_escapes_it(browser: httpx.AsyncClient) -> None:
    await log_in(browser, "<b>Zoë</b>")
    answer = await browser.get("/")
    assert "&lt;b&gt;Zoë&lt;/b&gt;" in answer.text
    assert "<b>Zoë" not in answer.text


async def test_the_cookie_is_out_of_reach_of_scripts(browser: httpx.AsyncClient) -> None:
    answer = await browser.post("/login", data={"username": "anna"})
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie


@pytest.mark.parametrize("name", ["", "   ", "x" * 300])
async def test_a_name_that_is_none_is_refused_on_the_page(browser: httpx.AsyncClient, name: str) -> None:
    answer = await browser.post("/login", data={"username": name})
    assert answer.status_code == 400
    assert "1 to 255 characters" in answer.text


async def test_logging_out_forgets(browser: httpx.AsyncClient) -> None:
    await log_in(browser)
    answer = await browser.post("/logout")
    assert answer.status_code == 303
    assert 'name="username"' in (await browser.get("/")).text


@pytest.mark.parametrize("form", ["urlencoded", "multipart"])
async def test_send_to_user_stores_and_answers_ok(browser: httpx.AsyncClient, post: FakePost, form: str) -> None:
    await log_in(browser)
    fields = {"receiver": "bob", "msg": 'hi "bob" & co'}
    if form == "multipart":
        answer = await browser.post("/wsTemplate/sendToUser", files={k: (None, v) for k, v in fields.items()})
    else:
        answer = await browser.post("/wsTemplate/sendToUser", data=fields)
    assert (answer.status_code, answer.text) == (200, "ok")
    body = b'{"content":"anna say: hi \\"bob\\" & co"}'
    assert post.sent == [("bob", "/topic/reply", body, "anna", "application/json")]


async def test_who_is_not_logged_in_sends_nothing(browser: httpx.AsyncClient, post: FakePost) -> None:
    answer = await browser.post("/wsTemplate/sendToUser", data={"receiver": "bob", "msg": "hi"})
    assert answer.status_code == 401
    assert post.sent == []


@pytest.mark.parametrize(("error", "status"), [(MailboxFull("full"), 400), (StoreUnavailable("down"), 503)])
async def test_what_is_not_stored_is_not_ok(
    browser: httpx.AsyncClient, post: FakePost, error: Exception, status: int
) -> None:
    await log_in(browser)
    post.error = error
    answer = await browser.post("/wsTemplate/sendToUser", data={"receiver": "bob", "msg": "hi"})
    assert (answer.status_code, answer.text) == (status, str(error))


async def test_forms_of_other_sites_are_refused(browser: httpx.AsyncClient, post: FakePost) -> None:
    await log_in(browser)
    headers = {"origin": "http://evil.test"}
    answer = await browser.post("/wsTemplate/sendToUser", data={"receiver": "bob", "msg": "hi"}, headers=headers)
    assert answer.status_code == 403
    assert post.sent == []


@pytest.mark.parametrize("destination", ["/topic/reply", "/user/topic/reply"])
async def test_pull_hands_out_what_waits(browser: httpx.AsyncClient, post: FakePost, destination: str) -> None:
    await log_in(browser)
    post.waiting = [b'{"content":"1"}', "zwei ü".encode()]
    answer = await browser.post("/wsTemplate/pullUnreadMessage", data={"destination": destination})
    assert answer.json() == {"code": "200", "result": ['{"content":"1"}', "zwei ü"]}
    assert post.cleared


@pytest.mark.parametrize(
    "destination", ["", "topic/reply", "/topic/../reply", "/topic//reply", "/topic/\n", "/" + "x" * 300]
)
async def test_pull_from_no_destination_fails(browser: httpx.AsyncClient, post: FakePost, destination: str) -> None:
    await log_in(browser)
    post.waiting = [b"kept"]
    answer = await browser.post("/wsTemplate/pullUnreadMessage", data={"destination": destination})
    assert answer.status_code == 200
    assert answer.json()["code"] == "500"
    assert answer.json()["msg"]
    assert not post.cleared


async def test_pull_of_an_empty_mailbox_has_no_result(browser: httpx.AsyncClient) -> None:
    await log_in(browser)
    answer = await browser.post("/wsTemplate/pullUnreadMessage", data={"destination": "/topic/reply"})
    assert answer.json() == {"code": "200"}


async def test_pull_that_fails_says_so(browser: httpx.AsyncClient, post: FakePost) -> None:
    await log_in(browser)
    post.error = StoreUnavailable("down")
    answer = await browser.post("/wsTemplate/pullUnreadMessage", data={"destination": "/topic/reply"})
    assert answer.json() == {"code": "500", "msg": "down"}
    answer = await browser.post("/wsTemplate/pullUnreadMessage", data={})
    assert answer.json()["code"] == "500"


async def test_pull_by_a_stranger_fails(browser: httpx.AsyncClient) -> None:
    answer = await browser.post("/wsTemplate/pullUnreadMessage", data={"destination": "/topic/reply"})
    assert answer.json() == {"code": "500", "msg": "log in first"}


async def test_nothing_is_cleared_for_a_client_that_has_gone(post: FakePost) -> None:
    post.waiting = [b"precious"]
    body = b"destination=%2Ftopic%2Freply"
    app = Starlette(routes=[*ChatPage(post, COOKIES, PANES).routes()])
    incoming: list[dict[str, object]] = [
        {"type": "http.request", "body": body, "more_body": False},
        {"type": "http.disconnect"},
    ]

    async def receive() -> MutableMapping[str, object]:
        return incoming.pop(0) if incoming else {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, object]) -> None:
        return None

    headers = [
        (b"cookie", f"postroom={COOKIES.issue(UserName('anna'))}".encode()),
        (b"content-type", b"application/x-www-form-urlencoded"),
    ]
    scope = {
        "type": "http", "method": "POST", "path": "/wsTemplate/pullUnreadMessage", "headers": headers,
        "query_string": b"", "http_version": "1.1", "scheme": "http", "root_path": "",
    }  # fmt: skip
    await app(scope, receive, send)
    assert not post.cleared


async def test_too_large_a_form_is_refused(browser: httpx.AsyncClient) -> None:
    await log_in(browser)
    answer = await browser.post("/wsTemplate/sendToUser", data={"receiver": "bob", "msg": "x" * 70_000})
    assert answer.status_code == 413


async def test_the_pages_assets_are_its_own(browser: httpx.AsyncClient) -> None:
    await log_in(browser)
    page = (await browser.get("/")).text
    for asset in ("chat.css", "chat.js", "icon.svg", "vendor/sockjs.min.js", "vendor/stomp.umd.min.js"):
        assert f"/static/{asset}" in page
        assert (await browser.get(f"/static/{asset}")).status_code == 200
    assert "http://" not in page
    assert "https://" not in page
