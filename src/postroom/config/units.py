"""Durations and sizes as people write them: "10m", "64KiB"."""

import re
from collections.abc import Mapping
from typing import Any, Final

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_SIZE: Final = re.compile(r"(\d+)\s*(B|kB|KiB|MB|MiB|GB|GiB)")
_BYTES: Final = {"B": 1, "kB": 1000, "KiB": 1024, "MB": 10**6, "MiB": 1 << 20, "GB": 10**9, "GiB": 1 << 30}


def units(value: Any, key: str = "") -> Any:
    """`value` with the durations and sizes in words, known by the end of their key, as numbers."""
    if isinstance(value, Mapping):
        return {name: units(item, name) for name, item in value.items()}
    if isinstance(value, str):
        if key.endswith("seconds") and (found := _DURATION.fullmatch(value)):
            return float(found[1]) * _SECONDS[found[2]]
        if key.endswith("bytes") and (found := _SIZE.fullmatch(value)):
            return int(found[1]) * _BYTES[found[2]]
    return value
