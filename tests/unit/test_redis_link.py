"""URLs of Redis and Valkey at a Unix socket; the client library's errors."""

import pytest

from postroom.errors import ConfigurationError, OutcomeUnknown, StoreUnavailable
from postroom.redis_link import parse_url, translated


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
        ("redis+unix:///run/v.sock?db=x", "db: expected `int`, got `str`"),
        ("redis+unix:///run/v.sock?tls=true", "a Unix socket has no TLS"),
        ("redis://localhost?db=3", "the database follows the host: …/3"),
        ("redis+http://localhost", "redis+unix://"),
    ],
)
def test_what_is_wrong_is_said(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_url(url)
    assert said in str(caught.value)


@pytest.mark.parametrize("error", [ConnectionResetError(), RuntimeError("closed"), AttributeError("no writer")])
async def test_a_connection_that_is_closed_while_it_is_used_is_one_without_an_answer(error: Exception) -> None:
    """redis-py says AttributeError where another task closes the connection; a node ended of it."""
    with pytest.raises(StoreUnavailable), translated():
        raise error
    with pytest.raises(OutcomeUnknown), translated(wrote=True):
        raise error
