"""Runs a program that must not outlive whoever started it: `python leash.py PARENT SIGNAL PROGRAM ARGUMENT...`

It becomes the program. On Linux the kernel sends the program SIGNAL when the process PARENT dies, however that ends;
elsewhere a parent that is killed leaves its programs behind. Started as a file: it needs the standard library alone.
"""

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Set the signal, then become the program."""
    parent, number, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != int(parent):  # it died before the signal was set
        sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
