import pytest

from postroom.sockjs import headers
from postroom.transport.base import Handshake


def request(**named: str) -> Handshake:
    return Handshake(
        path="/",
        query="",
        headers={"host": "chat.example", **{name.replace("_", "-"): value for name, value in named.items()}},
        peer_address="",
        secure=True,
    )


@pytest.mark.parametrize(
    ("named", "allowed", "origin"),
    [
        ({}, (), None),
        ({"origin": "https://chat.example"}, (), "https://chat.example"),
        ({"origin": "https://other.example"}, (), None),
        ({"origin": "https://other.example"}, ("https://other.example",), "https://other.example"),
        ({"origin": "https://other.example"}, ("*",), "https://other.example"),
        ({"origin": "null"}, (), None),
        ({"origin": "null"}, ("*",), "*"),
        ({}, ("*",), "*"),
    ],
)
def test_only_allowed_pages_may_read(named: dict[str, str], allowed: tuple[str, ...], origin: str | None) -> None:
    told = dict(headers.cors(request(**named), allowed))
    assert told.pop("Vary") == "Origin"
    assert told.get("Access-Control-Allow-Origin") == origin
    assert ("Access-Control-Allow-Credentials" in told) == (origin is not None)


@pytest.mark.parametrize(
    ("named", "origin"),
    [
        ({}, None),
        ({"sec_fetch_site": "none"}, None),
        ({"sec_fetch_site": "same-origin"}, "https://chat.example"),
        ({"sec_fetch_site": "cross-site"}, "null"),
        ({"sec_fetch_site": "cross-site", "referer": "https://evil.example/a?b"}, "https://evil.example"),
        ({"sec_fetch_site": "same-site", "referer": "https://app.example/"}, "https://app.example"),
        ({"sec_fetch_site": "cross-site", "origin": "https://a.example"}, "https://a.example"),
    ],
)
def test_a_request_without_origin_may_still_tell_its_page(named: dict[str, str], origin: str | None) -> None:
    assert headers.with_origin(request(**named)).headers.get("origin") == origin


@pytest.mark.parametrize(
    ("cookie", "value"),
    [
        ("", "dummy"),
        ("JSESSIONID=abc", "abc"),
        ("a=b; JSESSIONID=abc.node1; c=d", "abc.node1"),
        ("XJSESSIONID=abc", "dummy"),
        ("JSESSIONID=", "dummy"),
    ],
)
def test_the_cookie_is_the_clients_own_or_a_dummy(cookie: str, value: str) -> None:
    assert headers.session_cookie({"cookie": cookie}) == ("Set-Cookie", f"JSESSIONID={value}; path=/")


def test_frames_are_shown_on_allowed_pages() -> None:
    assert headers.framed_by(())[1] == "frame-ancestors 'self'"
    assert headers.framed_by(("https://a.example",))[1] == "frame-ancestors 'self' https://a.example"
    assert headers.framed_by(("https://a.example", "*"))[1] == "frame-ancestors *"
