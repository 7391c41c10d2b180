"""Fuzzing of what reads bytes from the network. `make fuzz` runs it for long, `tests/fuzz` for a moment."""
