"""The truth: logs, cursors and the directory."""
