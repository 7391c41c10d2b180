"""The chat page: one node, a login by name, and two people who write to each other."""

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from msgspec import structs
from starlette.routing import BaseRoute

from postroom.app import serve
from postroom.auth import Authentication
from postroom.auth.cookie import CookieAuthenticator
from postroom.auth.dev import DevAuthenticator
from postroom.channel import Channel
from postroom.config import Settings
from postroom.demo.routes import ChatPage
from postroom.node import Node
from postroom.store import file_of

CHAT: Final = Channel(
    code="CHAT",
    destination="/user/*/topic/reply",
    description="Chat messages; they wait for those who are away",
    delivery="durable",
)


def run(settings: Settings) -> None:
    """Serve the chat page until SIGTERM or SIGINT. Who has a cookie is its user; others are who they say."""
    if not any(channel.code == CHAT.code for channel in settings.channels):
        settings = structs.replace(settings, channels=(CHAT, *settings.channels))
    cookies = CookieAuthenticator(_secret(settings))

    def routes(node: Node) -> Sequence[BaseRoute]:
        node.channels.by_code(CHAT.code)
        return ChatPage(node, cookies).routes()

    serve(settings, authentication=Authentication([cookies, DevAuthenticator()]), routes=routes)


def _secret(settings: Settings) -> str:
    """What signs the cookies; kept beside the store, so that a restart logs nobody out."""
    store = file_of(settings.store)
    if store is None:
        return secrets.token_hex(32)
    file = Path(store).with_name("demo-secret")
    try:
        return file.read_text(encoding="ascii")
    except FileNotFoundError:
        file.parent.mkdir(parents=True, exist_ok=True)
        secret = secrets.token_hex(32)
        file.touch(mode=0o600)
        file.write_text(secret, encoding="ascii")
        return secret
