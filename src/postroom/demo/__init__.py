"""The chat page: a login by name, and people who write to each other; on one node, or on several behind one port."""

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
from msgspec import structs
from starlette.routing import BaseRoute

from postroom.app import serve
from postroom.auth import Authentication
from postroom.auth.cookie import CookieAuthenticator
from postroom.auth.dev import DevAuthenticator
from postroom.channel import Channel
from postroom.config import CookieAuth, Settings
from postroom.demo import cluster
from postroom.demo.panes import PaneAuthenticator
from postroom.demo.routes import ChatPage
from postroom.node import Node
from postroom.processes.valkey import NoValkey
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
    cookie = _cookie(settings)
    cookies = CookieAuthenticator(cookie.secret, cookie_name=cookie.name, max_age_seconds=cookie.max_age_seconds)
    panes = PaneAuthenticator(cookie.secret, cookies)

    def routes(node: Node) -> Sequence[BaseRoute]:
        node.channels.by_code(CHAT.code)
        return ChatPage(node, cookies, panes).routes()

    serve(settings, authentication=Authentication([panes, DevAuthenticator()]), routes=routes)


def run_nodes(settings: Settings, nodes: int, config: Path | None) -> None:
    """The same on several nodes behind one port. Where there is no Valkey to be had, one node on a file must do."""
    secret = _cookie(settings).secret if settings.auth.cookie is not None else _kept(cluster.FOLDER / "demo-secret")
    try:
        cluster.run(settings, nodes, secret, config)
    except NoValkey as error:
        click.secho(f"{error}\nso this is one node with an embedded store", err=True, bold=True)
        run(settings)


def _cookie(settings: Settings) -> CookieAuth:
    if settings.auth.cookie is not None:
        return settings.auth.cookie
    store = file_of(settings.store)
    return CookieAuth(secrets.token_hex(32) if store is None else _kept(store.with_name("demo-secret")))


def _kept(file: Path) -> str:
    """What signs the cookies; kept in a file, so that a restart logs nobody out."""
    try:
        return file.read_text(encoding="ascii")
    except FileNotFoundError:
        file.parent.mkdir(parents=True, exist_ok=True)
        secret = secrets.token_hex(32)
        file.touch(mode=0o600)
        file.write_text(secret, encoding="ascii")
        return secret
