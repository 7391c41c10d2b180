"""What is wrong in an engine's URL is said in one sentence, which names it and no password."""

import pytest

from postroom.backplane.base import open_backplane
from postroom.errors import ConfigurationError
from postroom.store import open_store


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nats://h?timeouts=3", "nats://…: there is no option timeouts; did you mean timeout?"),
        ("kafka://h?zzz=3", "kafka://…: there is no option zzz; there are ca-file, cert-file, key-file, partitions,"),
        ("amqp://h?queue-bytes=1", "amqp://…: queue-bytes: expected `int` >= 1048576"),
        ("redis://h?timeout=soon", "redis://…: timeout: expected `float`, got `str`"),
        ("postgresql://h/d?ssl-mode=off", "postgresql://…: there is no option ssl-mode; did you mean sslmode?"),
        ("postgresql://h/d?pool=1", "postgresql://…: pool: expected `int` >= 2"),
        ("nats://h?prefix", "nats://…: the options after ? are written name=value&name=value"),
        ("nats://h?nkey-file=/nowhere", "nats://…: nkey-file: there is no file /nowhere"),
        ("nats://h?credentials-file=/nowhere", "nats://…: credentials-file: there is no file /nowhere"),
        ("nats://h:port", "nats://…: 'h:port' is no host:port"),
        ("nats:h", "nats: write nats://host:port"),
        ("mysql://ann:s3cr3t@h", "no backplane serves 'mysql:': use one of amqp:, amqps:, kafka:, memory:, nats:,"),
    ],
)
def test_what_is_wrong_in_a_backplanes_url(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_backplane(url)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("url", ["nats://ann:s3cr3t@h", "mysql://ann:s3cr3t@h/x"])
def test_what_is_no_store_is_said_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_store(url)
    assert str(caught.value).startswith(f"no store serves '{url.partition(':')[0]}:': use one of memory:, postgres:,")
