"""What drives one client's pipe."""

from postroom.gateway.desk import Desk, Limits
from postroom.gateway.gateway import Gateway

__all__ = ["Desk", "Gateway", "Limits"]
