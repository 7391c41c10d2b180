"""Who a client is: what is believed, what is not, and what is passed on to the next."""

import contextlib
import hmac
import json
import os
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import URLSafeTimedSerializer
from jwt.algorithms import RSAAlgorithm

from postroom.auth import Authentication
from postroom.auth.cookie import CookieAuthenticator
from postroom.auth.dev import DevAuthenticator
from postroom.auth.header import HeaderAuthenticator
from postroom.auth.jwt import JwtAuthenticator
from postroom.clock import SystemClock
from postroom.errors import AuthenticationFailed, ConfigurationError
from postroom.identity import UserName
from postroom.transport.base import Handshake

NOW = SystemClock().wall()
PAGE = "https://chat.example"
SECRET = "0123456789abcdef" * 4
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())


def handshake(peer: str = "127.0.0.1", **headers: str) -> Handshake:
    return Handshake("/ws", "", {k.replace("_", "-"): v for k, v in headers.items()}, peer, False)


def pem(key: Any) -> str:
    public = key.public_key()
    return str(
        public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    )


def token(key: Any = SECRET, algorithm: str = "HS256", *, kid: str | None = None, **claims: Any) -> str:
    body = {"sub": "anna", "exp": NOW + 7200, **claims}
    headers = {"kid": kid} if kid else None
    return jwt.encode({k: v for k, v in body.items() if v is not None}, key, algorithm, headers=headers)


def hs256(**options: Any) -> JwtAuthenticator:
    return JwtAuthenticator(algorithms=["HS256"], key=SECRET, **options)


def test_a_token_is_believed_at_the_handshake_and_at_connect() -> None:
    who = hs256()
    principal = who.at_handshake(handshake(authorization=f"Bearer {token(roles=['staff'])}"))
    assert principal is not None
    assert principal.name == "anna"
    assert principal.roles == frozenset({"staff"})
    assert principal.expires_at is not None
    for headers in ({"Authorization": f"Bearer {token()}"}, {"token": token()}, {"passcode": token()}):
        assert who.at_connect(handshake(), headers) is not None


def test_no_token_names_nobody() -> None:
    assert hs256().at_handshake(handshake()) is None
    assert hs256().at_connect(handshake(), {"login": "anna"}) is None


@pytest.mark.parametrize(
    "bad",
    [
        token("another secret, also of 32 chars.."),
        token(exp=NOW - 60),
        token(exp=None),
        token(sub=None),
        token(nbf=NOW + 36_000),
        jwt.encode({"sub": "anna", "exp": NOW + 7200}, "", "none"),
        token(SECRET, "HS512"),
        token(sub="a\nb"),
        "not.a.token",
    ],
)
def test_a_token_that_is_not_right_is_refused_and_says_no_secret(bad: str) -> None:
    with pytest.raises(AuthenticationFailed) as error:
        hs256().at_handshake(handshake(authorization=f"Bearer {bad}"))
    assert SECRET not in str(error.value)
    assert bad not in str(error.value)


def test_audience_and_issuer_are_checked_where_configured() -> None:
    who = hs256(audience="chat", issuer="me")
    assert who.at_connect(handshake(), {"token": token(aud="chat", iss="me")}) is not None
    for claims in ({"aud": "other", "iss": "me"}, {"aud": "chat", "iss": "other"}, {}):
        with pytest.raises(AuthenticationFailed):
            who.at_connect(handshake(), {"token": token(**claims)})


def test_public_keys_of_both_kinds() -> None:
    for key, algorithm in ((RSA, "RS256"), (EC, "ES256")):
        who = JwtAuthenticator(algorithms=[algorithm], key=pem(key))
        assert who.at_connect(handshake(), {"token": token(key, algorithm)}) is not None
        with pytest.raises(AuthenticationFailed):  # the public key as a secret: the algorithm is ours to say
            who.at_connect(handshake(), {"token": token("x" * 64, "HS256")})


def test_a_key_set_is_read_again_when_it_changes(tmp_path: Path) -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    file = tmp_path / "jwks.json"

    def write(key: Any, kid: str, stamp: float) -> None:
        entry = json.loads(RSAAlgorithm.to_jwk(key.public_key())) | {"kid": kid, "alg": "RS256"}
        file.write_text(json.dumps({"keys": [entry]}))
        os.utime(file, (stamp, stamp))

    write(RSA, "one", 1.0)
    who = JwtAuthenticator(algorithms=["RS256"], jwks_file=str(file))
    assert who.at_connect(handshake(), {"token": token(RSA, "RS256", kid="one")}) is not None
    with pytest.raises(AuthenticationFailed):
        who.at_connect(handshake(), {"token": token(other, "RS256", kid="two")})
    write(other, "two", 2.0)
    who._jwks._looked = 0.0  # type: ignore[union-attr]  # a second has passed
    assert who.at_connect(handshake(), {"token": token(other, "RS256", kid="two")}) is not None


@pytest.mark.parametrize(
    "options",
    [
        {"algorithms": ["HS256"], "key": "short"},
        {"algorithms": [], "key": SECRET},
        {"algorithms": ["none"], "key": SECRET},
        {"algorithms": ["HS256"]},
        {"algorithms": ["HS256", "RS256"], "key": SECRET},
        {"algorithms": ["RS256"], "jwks_file": "/nowhere.json"},
        {"algorithms": ["RS256"], "key": "no PEM"},
        {"algorithms": ["ES256"], "key": pem(RSA)},
        {"algorithms": ["HS256"], "key": pem(RSA)},
    ],
)
def test_what_cannot_work_is_refused_at_start(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        JwtAuthenticator(**options)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"keys": {}}',
        '{"keys": [3]}',
        '{"keys": []}',
        '{"keys": [{}]}',
        '{"keys": [{"kty": "oct", "k": "c2hvcnQ"}]}',
    ],
)
def test_a_file_without_usable_keys_is_refused_at_start(tmp_path: Path, text: str) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match="jwks-file"):
        JwtAuthenticator(algorithms=["RS256", "ES256"], jwks_file=str(file))


def test_a_short_secret_in_a_key_set_is_refused_at_start(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_text('{"keys": [{"kty": "oct", "k": "c2hvcnQ"}]}')
    with pytest.raises(ConfigurationError, match="no key for HS256"):
        JwtAuthenticator(algorithms=["HS256"], jwks_file=str(file))


def test_keys_for_other_purposes_are_passed_over(tmp_path: Path) -> None:
    """Keycloak publishes a key for encryption beside the one for signatures."""
    mine = {**RSAAlgorithm.to_jwk(RSA.public_key(), as_dict=True), "kid": "mine"}
    other = [
        {**mine, "kid": "enc", "use": "enc", "alg": "RSA-OAEP"},
        {**mine, "kid": "alg", "alg": "RS512"},
        {"kty": "unheard-of", "kid": "new"},
        {"kty": "RSA", "kid": "broken"},
        {"kty": "oct", "k": "A" * 80, "kid": "secret"},
    ]
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": [*other, mine]}))
    who = JwtAuthenticator(algorithms=["RS256"], jwks_file=str(file))
    assert who.at_connect(handshake(), {"token": token(RSA, "RS256", kid="mine")}) is not None
    assert who.at_connect(handshake(), {"token": token(RSA, "RS256")}) is not None
    for kid in ("enc", "alg", "new", "broken", "secret"):
        with pytest.raises(AuthenticationFailed):
            who.at_connect(handshake(), {"token": token(RSA, "RS256", kid=kid)})


def test_while_the_key_set_cannot_be_read_the_last_keys_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postroom.auth.jwt._LOOK_SECONDS", 0.0)
    one = {**RSAAlgorithm.to_jwk(RSA.public_key(), as_dict=True), "kid": "one"}
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": [one]}))
    who = JwtAuthenticator(algorithms=["RS256"], jwks_file=str(file))
    shown = {"token": token(RSA, "RS256", kid="one")}
    for broken in ("", "{", '{"keys": []}'):
        file.write_text(broken)
        assert who.at_connect(handshake(), shown) is not None
    file.unlink()
    assert who.at_connect(handshake(), shown) is not None
    file.write_text(json.dumps({"keys": [{**one, "kid": "two"}]}))
    with pytest.raises(AuthenticationFailed):
        who.at_connect(handshake(), shown)


@pytest.mark.parametrize("algorithm", ["HS256", "RS256"])
def test_a_public_key_is_no_secret(algorithm: str) -> None:
    """The classic confusion: a token signed with the public key as if that were a secret."""
    who = JwtAuthenticator(algorithms=["RS256"], key=pem(RSA))
    body, key = {"sub": "anna", "exp": NOW + 7200}, pem(RSA).encode()
    head = {"alg": algorithm, "typ": "JWT"}
    parts = [urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (head, body)]
    forged = b".".join([*parts, urlsafe_b64encode(hmac.digest(key, b".".join(parts), "sha256")).rstrip(b"=")])
    with pytest.raises(AuthenticationFailed):
        who.at_connect(handshake(), {"token": forged.decode()})


@given(st.text() | st.lists(st.binary().map(lambda part: urlsafe_b64encode(part).decode()), min_size=3).map(".".join))
def test_no_token_does_worse_than_be_refused(text: str) -> None:
    for who in (hs256(), JwtAuthenticator(algorithms=["RS256"], key=pem(RSA))):
        with contextlib.suppress(AuthenticationFailed):
            assert who.at_connect(handshake(), {"token": text}) is None


def test_a_deeply_nested_token_is_refused() -> None:
    for head in ("[" * 5000, '{"alg":"HS256","x":' + "[" * 5000):
        with pytest.raises(AuthenticationFailed):
            hs256().at_connect(handshake(), {"token": urlsafe_b64encode(head.encode()).decode() + ".e30.eA"})


def test_a_token_with_an_impossible_expiry_is_refused() -> None:
    impossible: list[Any] = [float("inf"), float("nan"), "soon", [], {}]
    for exp in impossible:
        body = urlsafe_b64encode(json.dumps({"sub": "anna", "exp": exp}).encode()).rstrip(b"=")
        head = urlsafe_b64encode(b'{"alg":"HS256"}').rstrip(b"=")
        signed = head + b"." + body
        mac = urlsafe_b64encode(hmac.digest(SECRET.encode(), signed, "sha256")).rstrip(b"=")
        with pytest.raises(AuthenticationFailed):
            hs256().at_connect(handshake(), {"token": (signed + b"." + mac).decode()})


def test_other_applications_cookies_do_no_harm() -> None:
    who = CookieAuthenticator(SECRET)
    mine = who.issue(UserName("anna"))
    for others in ('prefs={"a":1, "b":[2]}', "a[b]=x y; foo", "=; ;;", "postroom=stale.of.a-parent", 'x="a\\"b'):
        assert who.read(f"{others}; postroom={mine}") == "anna"
        assert who.read(f"postroom={mine}; {others}") == "anna"
    assert who.read(f"xpostroom={mine}") is None


def test_a_cookie_that_holds_something_else_names_nobody() -> None:
    who = CookieAuthenticator(SECRET)
    other = URLSafeTimedSerializer(SECRET, salt="postroom.session").dumps({"user": "anna"})
    assert who.read(f"postroom={other}") is None


@given(st.text())
def test_no_cookie_header_does_worse_than_name_nobody(text: str) -> None:
    assert CookieAuthenticator(SECRET).read(f"postroom={text}") is None


@pytest.mark.parametrize("options", [{"secret": "short"}, {"secret": SECRET, "cookie_name": "a b"}])
def test_a_cookie_that_cannot_work_is_refused_at_start(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        CookieAuthenticator(**options)


def test_a_cookie_names_whom_it_was_issued_to() -> None:
    who = CookieAuthenticator(SECRET)
    cookie = f"other=1; postroom={who.issue(UserName('Zoë'))}"
    principal = who.at_handshake(handshake(cookie=cookie, origin=PAGE))
    assert principal is not None
    assert principal.name == "Zoë"
    assert who.read(cookie) == "Zoë"


def test_a_forged_or_old_cookie_names_nobody() -> None:
    who = CookieAuthenticator(SECRET)
    forged = CookieAuthenticator("f" * 32).issue(UserName("anna"))
    old = CookieAuthenticator(SECRET, max_age_seconds=-1)
    assert who.at_handshake(handshake(cookie=f"postroom={forged}", origin=PAGE)) is None
    assert old.at_handshake(handshake(cookie=f"postroom={who.issue(UserName('anna'))}", origin=PAGE)) is None
    assert who.at_handshake(handshake(origin=PAGE)) is None


@pytest.mark.parametrize("origin", [{}, {"origin": "null"}])
def test_a_cookie_without_the_page_it_comes_from_is_refused_and_says_why(origin: dict[str, str]) -> None:
    cookies = CookieAuthenticator(SECRET)
    shown = handshake(cookie=f"postroom={cookies.issue(UserName('anna'))}", **origin)
    who = Authentication([cookies, DevAuthenticator()])
    assert who.at_handshake(shown) is None
    with pytest.raises(AuthenticationFailed, match="Origin"):
        who.authenticate(shown, {"login": "bob"})


def test_other_credentials_need_no_origin_whatever_cookie_comes_along() -> None:
    cookies = CookieAuthenticator(SECRET)
    cookie = f"postroom={cookies.issue(UserName('anna'))}"
    who = Authentication([hs256(), cookies, HeaderAuthenticator("X-User", ["10.0.0.0/8"])])
    assert who.authenticate(handshake(cookie=cookie), {"token": token(sub="zoe")}).name == "zoe"
    assert who.authenticate(handshake("10.1.1.1", cookie=cookie, x_user="bob"), {}).name == "bob"
    assert who.authenticate(handshake("10.1.1.1", x_user="bob"), {}).name == "bob"
    forged = Authentication([cookies, DevAuthenticator()])
    assert forged.authenticate(handshake(cookie="postroom=old.or.forged"), {"login": "bob"}).name == "bob"


def test_a_proxys_header_is_believed_from_its_network_only() -> None:
    who = HeaderAuthenticator("X-Forwarded-User", ["10.0.0.0/8"])
    assert who.at_handshake(handshake("10.1.2.3", x_forwarded_user="anna")) is not None
    assert who.at_handshake(handshake("192.168.1.1", x_forwarded_user="anna")) is None
    assert who.at_handshake(handshake("10.1.2.3")) is None
    assert who.at_handshake(handshake("::ffff:10.1.2.3", x_forwarded_user="anna")) is not None
    assert who.at_handshake(handshake("::ffff:192.168.1.1", x_forwarded_user="anna")) is None
    assert who.at_handshake(handshake("unix", x_forwarded_user="anna")) is None


@pytest.mark.parametrize(("name", "trusted"), [("", ["10.0.0.0/8"]), ("X-User", []), ("X-User", ["10.0.0.1/8"])])
def test_a_header_that_cannot_work_is_refused_at_start(name: str, trusted: list[str]) -> None:
    with pytest.raises(ConfigurationError):
        HeaderAuthenticator(name, trusted)


def test_in_development_clients_say_who_they_are() -> None:
    who = DevAuthenticator()
    named = who.at_connect(handshake(), {"login": "anna"})
    first, second = who.at_connect(handshake(), {}), who.at_connect(handshake(), {})
    assert named is not None
    assert first is not None
    assert second is not None
    assert named.name == "anna"
    assert first.name.startswith("anonymous-")
    assert first.name != second.name


def test_the_handshake_counts_before_connect_and_nobody_is_refused() -> None:
    cookies = CookieAuthenticator(SECRET)
    who = Authentication([cookies, DevAuthenticator()])
    cookie = f"postroom={cookies.issue(UserName('anna'))}"
    assert who.authenticate(handshake(cookie=cookie, origin=PAGE), {"login": "bob"}).name == "anna"
    assert who.authenticate(handshake(), {"login": "bob"}).name == "bob"
    with pytest.raises(AuthenticationFailed, match="needed"):
        Authentication([cookies]).authenticate(handshake(), {"login": "bob"})
