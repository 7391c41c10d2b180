"""No program outlives whoever started it, also where the kernel has no signal for that."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from tests.support.deadline import DEADLINE

from postroom.processes import leash

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")

_SLEEPER = "import sys, time; sys.stdout.write('up\\n'); sys.stdout.flush(); time.sleep(600)"
_ELSEWHERE = f"""
import os, runpy, sys
real = os.uname()
os.uname = lambda: type("Uname", (), {{"sysname": "Darwin"}})
sys.argv = ["leash.py", *sys.argv[1:]]
runpy.run_path({str(Path(leash.__file__))!r}, run_name="__main__")
"""
_LEASH = {"linux": [str(Path(leash.__file__))], "elsewhere": ["-c", _ELSEWHERE]}

_PARENT = """
import os, subprocess, sys
leash = sys.argv[1:]
child = subprocess.Popen([sys.executable, *leash[:-1], str(os.getpid()), "15", sys.executable, "-c", leash[-1]],
                         stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=["linux", "elsewhere"])
def way(request: pytest.FixtureRequest) -> list[str]:
    if request.param == "linux" and sys.platform != "linux":
        pytest.skip("the kernel's signal is Linux's")
    return _LEASH[request.param]


def test_it_ends_with_its_parent(way: list[str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT, *way, _SLEEPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        family = [child, *child.children(recursive=True)]
        parent.kill()
        parent.wait()
        _, alive = psutil.wait_procs(family, timeout=DEADLINE)
    assert alive == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_reaches_it_and_its_end_is_told(way: list[str], number: signal.Signals) -> None:
    command = [sys.executable, *way, str(os.getpid()), "15", sys.executable, "-c", _SLEEPER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        os.killpg(child.pid, number)
        assert child.wait(DEADLINE) == -number


def test_an_exit_code_is_passed_on(way: list[str]) -> None:
    command = [sys.executable, *way, str(os.getpid()), "15", sys.executable, "-c", "import sys; sys.exit(7)"]
    assert subprocess.run(command, timeout=DEADLINE, check=False).returncode == 7


def test_a_parent_that_died_before_is_noticed(way: list[str]) -> None:
    command = [sys.executable, *way, "1", "15", sys.executable, "-c", "print('started')"]
    done = subprocess.run(command, capture_output=True, timeout=DEADLINE, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
