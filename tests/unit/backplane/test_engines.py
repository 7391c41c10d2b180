"""What a backplane's engine says before it has a server."""

import subprocess
import sys

import pytest

from postroom.backplane.base import Subject
from postroom.backplane.names import name_of


@pytest.mark.parametrize(
    ("driver", "scheme", "extra"),
    [
        ("nats", "nats", "nats"),
        ("aiormq", "amqp", "rabbitmq"),
        ("aiokafka", "kafka", "kafka"),
        ("redis", "redis", "redis"),
        ("asyncpg", "postgresql", "postgres"),
    ],
)
def test_a_missing_client_is_named_with_the_command_that_installs_it(driver: str, scheme: str, extra: str) -> None:
    program = f"""
import sys
sys.modules[{driver!r}] = None
from postroom.backplane.base import open_backplane
from postroom.errors import MissingExtra
try:
    open_backplane("{scheme}://localhost")
except MissingExtra as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert f'pip install "postroom[{extra}]"' in said


def test_names_hold_nothing_that_an_engine_forbids() -> None:
    assert name_of(Subject("all")) == "all"
    assert name_of(Subject("node.n-1")) == "node.n-1"
    assert name_of(Subject("topic./topic/a.b *#>é")) == "topic.%2Ftopic%2Fa%2Eb%20%2A%23%3E%C3%A9"


def test_long_names_are_hashed_and_stay_apart() -> None:
    one, two = name_of(Subject("user." + "x" * 500)), name_of(Subject("user." + "x" * 499 + "y"))
    assert one != two
    assert max(len(one), len(two)) < 100
