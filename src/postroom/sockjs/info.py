"""The `/info` document (SockJS protocol 0.3.3, "Info test")."""

import msgspec


def info(entropy: int, *, websocket: bool, cookie_needed: bool) -> bytes:
    """What a client learns before it connects; `entropy` is 32 random bits, new at each call."""
    return msgspec.json.encode(
        {"entropy": entropy, "origins": ["*:*"], "cookie_needed": cookie_needed, "websocket": websocket}
    )
