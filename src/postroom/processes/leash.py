"""Runs a program that must not outlive whoever started it: `python leash.py PARENT SIGNAL PROGRAM ARGUMENT...`

On Linux it becomes the program, and the kernel sends that SIGNAL when the process PARENT dies, however that ends.
Elsewhere it stays beside the program, passes on what it is sent, and looks a few times a second whether PARENT lives.
Started as a file: it needs the standard library alone.
"""

import ctypes
import os
import signal
import subprocess
import sys

_PR_SET_PDEATHSIG = 1
_LOOK_SECONDS = 0.2


def main() -> None:
    """Set the signal and become the program, or watch over it."""
    parent, number, *command = sys.argv[1:]
    if os.uname().sysname == "Linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != int(parent):  # it died before the signal was set
        sys.exit(1)
    if os.uname().sysname == "Linux":
        os.execvp(command[0], command)
    end = _watch(int(parent), int(number), command)
    if end < 0:
        signal.signal(-end, signal.SIG_DFL)
        os.kill(os.getpid(), -end)
    sys.exit(end)


def _watch(parent: int, number: int, command: list[str]) -> int:
    """How the program ended; negative for a signal."""
    program = subprocess.Popen(command, close_fds=False)
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, lambda told, _: program.send_signal(told))
    orphaned = False
    while True:
        try:
            return program.wait(_LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            if not orphaned and os.getppid() != parent:
                orphaned = True
                program.send_signal(number)


if __name__ == "__main__":
    main()
