"""The load generator: `postroom bench fanout|direct|durable|connect|idle URL`.

It is a client, not a part of the server: it speaks to any server that takes STOMP over WebSocket (and, for
comparison, to Socket.IO), runs on uvloop and picows, and is bounded in time and number.
"""
