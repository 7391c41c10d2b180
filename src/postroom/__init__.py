"""Postroom: a distributed WebSocket messaging server and library.

The public names; each is loaded when it is first asked for, so that `postroom.stomp` alone stays light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from postroom.app import Postroom
    from postroom.channel import Channel, Permission, Retention
    from postroom.config import Settings
    from postroom.handlers import Request
    from postroom.transport.asgi import mount

__all__ = ["Channel", "Permission", "Postroom", "Request", "Retention", "Settings", "mount"]

_HOMES = {
    "Channel": "postroom.channel",
    "Permission": "postroom.channel",
    "Postroom": "postroom.app",
    "Request": "postroom.handlers",
    "Retention": "postroom.channel",
    "Settings": "postroom.config",
    "mount": "postroom.transport.asgi",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'postroom' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
