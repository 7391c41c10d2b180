"""What store and backplane in memory share: the name in their URL.

`memory:` and `memory://` have none, `memory:NAME` and `memory://NAME` have one, which all share that name it in one
process.
"""


def name_of(url: str) -> str:
    """The name; empty where there is none."""
    return url.partition(":")[2].removeprefix("//").rstrip("/")
