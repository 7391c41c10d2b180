"""Two people in one window: a pane's token, not the cookie that both share, says who sits there."""

import pytest

from postroom.auth.cookie import CookieAuthenticator
from postroom.demo.panes import PaneAuthenticator
from postroom.errors import AuthenticationFailed
from postroom.identity import UserName
from postroom.transport.base import Handshake

SECRET = "s" * 32
COOKIES = CookieAuthenticator(SECRET)
PANES = PaneAuthenticator(SECRET, COOKIES)


def handshake(**headers: str) -> Handshake:
    told = {"host": "chat.test", "origin": "http://chat.test", **headers}
    return Handshake(path="/ws", query="", headers=told, peer_address="127.0.0.1", secure=False)


def test_the_token_names_the_user_whatever_the_cookie_says() -> None:
    cookie = f"postroom={COOKIES.issue(UserName('anna'))}"
    found = PANES.at_connect(handshake(cookie=cookie), {"pane": PANES.issue(UserName("ben"))})
    assert found is not None
    assert found.name == "ben"


def test_without_a_token_the_cookie_counts() -> None:
    cookie = f"postroom={COOKIES.issue(UserName('anna'))}"
    found = PANES.at_connect(handshake(cookie=cookie), {})
    assert found is not None
    assert found.name == "anna"
    assert PANES.at_connect(handshake(), {}) is None


@pytest.mark.parametrize("token", ["", "forged", COOKIES.issue(UserName("ben"))])
def test_a_forged_token_is_refused(token: str) -> None:
    with pytest.raises(AuthenticationFailed, match="load the page again"):
        PANES.at_connect(handshake(), {"pane": token})
