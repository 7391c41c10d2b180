"""URLs of Redis and Valkey at a Unix socket."""

import pytest

from postroom.errors import ConfigurationError
from postroom.redis_link import parse_url


def test_a_unix_socket_is_named_by_its_path() -> None:
    url = parse_url("redis+unix://ann:s%40crt@/run/my%20valkey/v.sock?db=3&timeout=2")
    assert (url.kind, url.socket, url.hosts, url.database) == ("unix", "/run/my valkey/v.sock", (), 3)
    assert (url.username, url.password, url.options.timeout) == ("ann", "s@crt", 2.0)
    assert url.name == "/run/my valkey/v.sock"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis+unix://run/v.sock", "name the socket by its whole path"),
        ("redis+unix://", "name the socket by its whole path"),
        ("redis+unix:///run/v.sock?db=x", "the options after ? are wrong"),
        ("redis+unix:///run/v.sock?tls=true", "a Unix socket has no TLS"),
        ("redis://localhost?db=3", "the database follows the host: …/3"),
        ("redis+http://localhost", "redis+unix://"),
    ],
)
def test_what_is_wrong_is_said(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_url(url)
    assert said in str(caught.value)
