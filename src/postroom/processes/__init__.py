"""Programs that this process starts, and that do not outlive it: servers of the demo, workers, an embedded Valkey."""
