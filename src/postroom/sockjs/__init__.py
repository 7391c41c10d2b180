"""SockJS 0.3.3: an ASGI application for any session handler.

`framing`, `headers`, `info`, `iframe`, `paths`, `payload`, `session` and `wires` do no I/O; the rest drives them.
"""

from postroom.sockjs.app import SockJS
from postroom.sockjs.options import Options

__all__ = ["Options", "SockJS"]
