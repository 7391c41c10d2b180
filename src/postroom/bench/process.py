"""What the kernel says of another process. Linux only: /proc is all that is read."""

import os
from pathlib import Path


def rss_bytes(pid: int) -> int | None:
    """Give the resident memory of `pid`, or None where /proc does not tell."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def raise_open_files(wanted: int) -> int:
    """Raise the limit of open files towards `wanted`, as far as is allowed; give what it is now."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return soft
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return allowed
