"""Who a client is: what is believed, what is not, and what is passed on to the next."""

import json
import os
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
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
    body = {"sub": "anna", "exp": NOW + 60, **claims}
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
        token(nbf=NOW + 600),
        jwt.encode({"sub": "anna", "exp": NOW + 60}, "", "none"),
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
    ],
)
def test_what_cannot_work_is_refused_at_start(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        JwtAuthenticator(**options)


def test_a_cookie_names_whom_it_was_issued_to() -> None:
    who = CookieAuthenticator(SECRET)
    cookie = f"other=1; postroom={who.issue(UserName('Zoë'))}"
    principal = who.at_handshake(handshake(cookie=cookie))
    assert principal is not None
    assert principal.name == "Zoë"
    assert who.read(cookie) == "Zoë"


def test_a_forged_or_old_cookie_names_nobody() -> None:
    who = CookieAuthenticator(SECRET)
    forged = CookieAuthenticator("f" * 32).issue(UserName("anna"))
    old = CookieAuthenticator(SECRET, max_age_seconds=-1)
    assert who.at_handshake(handshake(cookie=f"postroom={forged}")) is None
    assert old.at_handshake(handshake(cookie=f"postroom={who.issue(UserName('anna'))}")) is None
    assert who.at_handshake(handshake()) is None


def test_a_proxys_header_is_believed_from_its_network_only() -> None:
    who = HeaderAuthenticator("X-Forwarded-User", ["10.0.0.0/8"])
    assert who.at_handshake(handshake("10.1.2.3", x_forwarded_user="anna")) is not None
    assert who.at_handshake(handshake("192.168.1.1", x_forwarded_user="anna")) is None
    assert who.at_handshake(handshake("10.1.2.3")) is None


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
    assert who.authenticate(handshake(cookie=cookie), {"login": "bob"}).name == "anna"
    assert who.authenticate(handshake(), {"login": "bob"}).name == "bob"
    with pytest.raises(AuthenticationFailed, match="needed"):
        Authentication([cookies]).authenticate(handshake(), {"login": "bob"})
