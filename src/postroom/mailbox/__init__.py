"""Logs at work: appends, followers, confirms and pulls. Log first, tell second."""

from postroom.mailbox.appender import Stored
from postroom.mailbox.confirms import Spawn
from postroom.mailbox.mailbox import Flow, Mailbox

__all__ = ["Flow", "Mailbox", "Spawn", "Stored"]
