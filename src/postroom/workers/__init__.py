"""`postroom serve --workers N`: worker processes that share a port, and the process that keeps them.

The workers are nodes of a cluster on one machine. What they share is a store that the settings name, or a Valkey that
is started for them: the URL `embedded:`, or `embedded:///FOLDER`, as store, backplane or both.
"""

from postroom.workers.engines import check, embeds, left_behind, needed
from postroom.workers.errand import read
from postroom.workers.supervisor import run

__all__ = ["check", "embeds", "left_behind", "needed", "read", "run"]
