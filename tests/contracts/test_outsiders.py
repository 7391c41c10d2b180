"""A third party's engines, certified as third parties do it: an installed package, its URLs, the kit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.kafka import Kafka
from tests.support.server import free_port
from tests.support.valkey import Valkey

from postroom.backplane.kafka import KafkaBackplane
from postroom.testing.detour import backplane_goes_round
from postroom.testing.links import Links, way_of

ENGINES = '''
from postroom.backplane.redis import RedisBackplane
from postroom.errors import StoreUnavailable
from postroom.store.redis import RedisStore


class ToyBackplane(RedisBackplane):
    def __init__(self, url):
        super().__init__(url.replace("toy://", "redis://"))


class ToyStore(RedisStore):
    def __init__(self, url, *, clock=None):
        super().__init__(url.replace("toy://", "redis://").replace("hasty://", "redis://"), clock=clock)


class HastyStore(ToyStore):
    """Says now and then of what it stored that it did not."""

    calls = 0

    async def append(self, batch):
        self.calls += 1
        answers = await super().append(batch)
        if self.calls % 3 == 0:
            raise StoreUnavailable("nothing was stored")
        return answers
'''
ENTRY_POINTS = """
[postroom.backplanes]
toy = toy_engines:ToyBackplane
[postroom.stores]
toy = toy_engines:ToyStore
hasty = toy_engines:HastyStore
[postroom.directories]
toy = toy_engines:ToyStore
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder with the third party's package, as pip leaves it."""
    about = tmp_path / "toy_engines-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-engines\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    (tmp_path / "toy_engines.py").write_text(ENGINES)
    return tmp_path


def certify(folder: Path, *words: str) -> tuple[int, str]:
    """The exit code of the kit, and what it said; as it is without any settings of pytest's."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    done = subprocess.run(
        [*command, "--pyargs", "postroom.testing.certify", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.timeout(120)
def test_an_engine_is_certified_with_its_faults(installed: Path, own_valkey: Valkey) -> None:
    url = f"toy://127.0.0.1:{own_valkey.port}?prefix={{fresh}}&timeout=1"
    code, said = certify(
        installed,
        *("--postroom-store", url, "--postroom-backplane", url),
        *("-k", "cut or lost or restart_of_the_server or entered"),
        *("--postroom-report", str(installed / "report.json")),
    )
    assert code == 0, said
    assert f"store {url.replace('{fresh}', 'check')}: ok" in said
    assert "Backplanes: 2 held, 0 did not, 1 left out\n" in said
    assert "Stores, hurt: 2 held, 0 did not, 1 left out\n" in said
    assert "left out 2: --postroom-restart is not given\n" in said
    outcomes = {row["test"]: row["outcome"] for row in json.loads((installed / "report.json").read_text())}
    assert outcomes["test_who_has_entered_is_found"] == "passed"
    assert outcomes["test_the_last_word_counts_while_connections_are_cut"] == "passed"


def test_an_engine_that_says_what_it_does_not_know_is_found(installed: Path, valkey: Valkey) -> None:
    url = f"hasty://127.0.0.1:{valkey.port}?prefix={{fresh}}&timeout=1"
    code, said = certify(installed, "--postroom-store", url, "-k", "what_fails_is_not_stored or who_has_entered")
    assert code == 1
    assert "Stores, hurt: 0 held, 1 did not, 0 left out\n" in said
    assert "its entry point is not among postroom.directories" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--postroom-store", "toy://ann:s3cr3t@127.0.0.1:{free}"], "toy://ann:***@127.0.0.1:{free}: not usable"),
        (["--postroom-store", "nosuch://x"], "no store serves 'nosuch:'"),
        (["--postroom-store", "memory:", "--postroom-pause", "true"], "needs --postroom-resume"),
        (["--postroom-store", "memory:", "--postroom-link", "x"], "'x' is no host:port"),
        ([], "name what is to be certified"),
    ],
)
def test_what_is_wrong_is_said_once(installed: Path, words: list[str], sentence: str) -> None:
    free = str(free_port())
    code, said = certify(installed, *(word.replace("{free}", free) for word in words))
    assert code == 4
    assert sentence.replace("{free}", free) in said
    assert "Traceback" not in said


async def test_a_client_that_is_led_round_the_proxy_is_noticed(kafka: Kafka) -> None:
    url = f"{kafka.url}?prefix=detour&timeout=2&partitions=2"
    inner, outer = kafka.ways[0]
    for ways, round_it in (([], True), ([way_of(f"127.0.0.1:{outer}=127.0.0.1:{inner}")], False)):
        with Links(url, ways=ways) as links:
            over = (lambda url=links.url: KafkaBackplane(url)), links
            assert await backplane_goes_round(lambda: KafkaBackplane(url), over) == round_it
