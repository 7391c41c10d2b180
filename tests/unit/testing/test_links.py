"""What is made of an engine's URL to lead it through proxies."""

import pytest

from postroom.testing.links import Links, NoLink, Way, led_through, servers_of, way_of


@pytest.mark.parametrize(
    ("url", "servers"),
    [
        ("redis://localhost", [("localhost", 6379)]),
        ("redis://ann:s%40c/ret@localhost:1/2?prefix=x", None),
        ("redis://ann:s%40cret@localhost:1/2?prefix=x", [("localhost", 1)]),
        ("postgresql://postroom@one,two:5433/x?sslmode=disable", [("one", 5432), ("two", 5433)]),
        ("toy://[::1]:77?at=ann@home", [("::1", 77)]),
        ("toy://host", None),
        ("memory:x", None),
        ("memory://", None),
        ("sqlite:////tmp/x.db", None),
        ("redis+unix:///run/valkey.sock", None),
    ],
)
def test_the_servers_of_a_url(url: str, servers: list[tuple[str, int]] | None) -> None:
    if servers is None:
        with pytest.raises(NoLink):
            servers_of(url)
    else:
        assert servers_of(url) == servers


@pytest.mark.parametrize(
    ("url", "led"),
    [
        ("redis://ann:s%40cret@far:1/2?prefix=x@y", "redis://ann:s%40cret@127.0.0.1:9,[::1]:8/2?prefix=x@y"),
        ("toy://one:1,two:2", "toy://127.0.0.1:9,[::1]:8"),
    ],
)
def test_only_the_servers_are_replaced(url: str, led: str) -> None:
    assert led_through(url, [("127.0.0.1", 9), ("::1", 8)]) == led


def test_a_way_may_be_named() -> None:
    assert way_of("localhost:0=[::1]:6379") == Way(("localhost", 0), ("::1", 6379))
    for text in ("localhost=x:1", "x:1", "", "x:1=y"):
        with pytest.raises(NoLink):
            way_of(text)


def test_named_ways_take_the_place_of_all_servers() -> None:
    with Links("kafka://one,two,three?x=1", ways=[way_of("localhost:0=one:9093")]) as links:
        assert links.url.startswith("kafka://localhost:")
        assert links.url.endswith("?x=1")
