"""Postroom: a distributed WebSocket messaging server and library."""
