"""Whose address counts behind proxies, and who may not lie about it."""

import pytest

from postroom.transport.base import Handshake
from postroom.transport.forwarded import Networks, TrustedProxies


def client(peer: str, forwarded: str | None, trusted: list[str]) -> str:
    headers = {} if forwarded is None else {"x-forwarded-for": forwarded}
    return TrustedProxies(trusted).client_of(Handshake("/ws", "", headers, peer, secure=False))


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "found"),
    [
        ("192.0.2.1", "198.51.100.9", [], "192.0.2.1"),
        ("192.0.2.1", "198.51.100.9", ["10.0.0.0/8"], "192.0.2.1"),
        ("10.0.0.1", "198.51.100.9", ["10.0.0.0/8"], "198.51.100.9"),
        ("10.0.0.1", "1.1.1.1, 198.51.100.9", ["10.0.0.0/8"], "198.51.100.9"),
        ("10.0.0.1", "198.51.100.9, 10.0.0.2", ["10.0.0.0/8"], "198.51.100.9"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", ["10.0.0.0/8"], "10.0.0.3"),
        ("10.0.0.1", None, ["10.0.0.0/8"], "10.0.0.1"),
        ("10.0.0.1", "198.51.100.9, nonsense", ["10.0.0.0/8"], "10.0.0.1"),
        ("10.0.0.1", "nonsense, 10.0.0.2", ["10.0.0.0/8"], "10.0.0.2"),
        ("10.0.0.1", " 198.51.100.9:4711 ", ["10.0.0.0/8"], "198.51.100.9"),
        ("10.0.0.1", "[2001:db8::1]:4711", ["10.0.0.0/8"], "2001:db8::1"),
        ("10.0.0.1", "2001:DB8:0::1", ["10.0.0.0/8"], "2001:db8::1"),
        ("::ffff:10.0.0.1", "::ffff:198.51.100.9", ["10.0.0.0/8"], "198.51.100.9"),
        ("unix", "198.51.100.9", ["unix"], "198.51.100.9"),
        ("unix", "198.51.100.9", ["10.0.0.0/8"], "unix"),
        ("unix", "198.51.100.9, unix", ["unix"], "unix"),
        ("", "198.51.100.9", ["0.0.0.0/0", "unix"], ""),
    ],
)
def test_the_last_address_that_no_trusted_proxy_has_is_the_clients(
    peer: str, forwarded: str | None, trusted: list[str], found: str
) -> None:
    assert client(peer, forwarded, trusted) == found


def test_a_network_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="host bits"):
        Networks(["10.0.0.1/8"])
