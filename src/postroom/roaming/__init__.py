"""SockJS sessions that clients reach through any node."""

from postroom.roaming.roaming import ITEMS, Roaming

__all__ = ["ITEMS", "Roaming"]
