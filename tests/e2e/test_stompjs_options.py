"""@stomp/stompjs with its options for odd sockets: frames cut into pieces, in binary messages, without their NUL."""

from collections.abc import Iterator

import pytest
from tests.conftest import ONE_NODE, Start
from tests.support.scripts import talk
from tests.support.server import Server

pytestmark = pytest.mark.e2e

_BEATS = "[heart-beat]\nsend-ms = 1000\nreceive-ms = 1000\n"


@pytest.fixture(scope="module")
def arrangement() -> str:
    """The wire is the same with several nodes."""
    return ONE_NODE


@pytest.fixture(scope="module")
def beating(tmp_path_factory: pytest.TempPathFactory, _start: Start) -> Iterator[Server]:
    """A server with quick heart-beats."""
    server = _start(tmp_path_factory.mktemp("beating"), _BEATS)
    yield server
    server.close()


@pytest.fixture(scope="module")
def lenient(tmp_path_factory: pytest.TempPathFactory, _start: Start) -> Iterator[Server]:
    """A server with quick heart-beats that completes frames whose NUL was cut off."""
    server = _start(tmp_path_factory.mktemp("lenient"), "append-missing-nul = true\n" + _BEATS)
    yield server
    server.close()


@pytest.mark.parametrize("option", ["split", "binary", "append"])
def test_frames_are_cut_and_wrapped(beating: Server, option: str) -> None:
    talk(beating, "options.cjs", option, str(beating.port))


@pytest.mark.parametrize("option", ["native", "binary"])
def test_nuls_may_be_missing(lenient: Server, option: str) -> None:
    talk(lenient, "options.cjs", option, str(lenient.port))
