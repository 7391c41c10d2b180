"""Subjects as engines may be given them, which have characters and lengths of their own that they forbid."""

import hashlib
from typing import Final
from urllib.parse import quote

from postroom.backplane.base import Subject

_LONGEST: Final = 200
"""A longer name travels as its hash: RabbitMQ's routing keys end at 255 bytes, NATS's control lines at 4 kB."""


def name_of(subject: Subject) -> str:
    """`kind.name` of letters, digits, `-_~%`: without a space, `*`, `#` or `>`, with no dot but that one."""
    kind, dot, rest = subject.partition(".")
    name = quote(rest if dot else kind, safe="").replace(".", "%2E")
    if len(name) > _LONGEST:
        name = "sha256-" + hashlib.sha256(name.encode()).hexdigest()
    return f"{kind}.{name}" if dot else name
