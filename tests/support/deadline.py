"""The one deadline of all waiting in tests."""

import os
from typing import Final

SCALE: Final = float(os.environ.get("POSTROOM_TEST_SCALE", "1"))
"""How much slower than a laptop the machine is."""

DEADLINE: Final = 10.0 * SCALE
"""Seconds that anything may take that is expected to happen at once."""
