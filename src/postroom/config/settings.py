"""The settings of a node: every key, its default and its unit."""

from typing import Literal

from msgspec import Struct, field

from postroom.channel import Channel
from postroom.destination import Prefixes


class Endpoints(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """Where WebSockets are served: plain STOMP, and the prefix of SockJS."""

    stomp: str = "/ws"
    sockjs: str = "/chat-websocket"


class HeartBeat(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """What the server offers (STOMP, "Heart-beating"): sends at least so often, wants to hear so often; ms, 0 off."""

    send_ms: int = 10_000
    receive_ms: int = 10_000


class Limits(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """What one client may use. Each limit has a clear refusal."""

    max_message_bytes: int = 262_144
    max_headers: int = 64
    max_header_bytes: int = 8_192
    subscriptions_per_session: int = 256
    sessions: int = 1_000_000
    sessions_per_user: int = 10_000
    sessions_per_address: int = 100_000
    frames_per_second: int = 100_000
    transactions: int = 10
    pending_appends: int = 1_024
    write_buffer_bytes: int = 1_048_576
    request_seconds: float = 10.0
    connect_seconds: float = 10.0


class Delivery(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """How durable messages reach a subscription."""

    max_in_flight_messages: int = 1_000
    max_in_flight_bytes: int = 1_048_576
    confirm_seconds: float = 0.05
    confirm_batch: int = 256
    page_messages: int = 200
    probe_timeout_seconds: float = 30.0


class JwtAuth(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """JSON Web Tokens, at the handshake (`Authorization: Bearer`) or in CONNECT (`Authorization`, `passcode`)."""

    algorithms: tuple[str, ...]
    key: str | None = None
    key_file: str | None = None
    jwks_file: str | None = None
    audience: str | None = None
    issuer: str | None = None
    user_claim: str = "sub"
    roles_claim: str = "roles"
    leeway_seconds: float = 30.0


class CookieAuth(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """A session cookie that Postroom's own login or another application signs with the same secret."""

    secret: str
    name: str = "postroom"
    max_age_seconds: float = 86_400.0


class HeaderAuth(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """A header that a trusted proxy sets, believed only from these networks."""

    name: str
    trusted: tuple[str, ...]


class Auth(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """Who may come in; tried in this order."""

    jwt: JwtAuth | None = None
    cookie: CookieAuth | None = None
    header: HeaderAuth | None = None


class Log(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class Settings(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """Defaults < `postroom.toml` < `POSTROOM_*` < the command line."""

    node_id: str = "node-1"
    host: str = "127.0.0.1"
    port: int = 8080
    store: str = "sqlite:///postroom-data/postroom.db"
    dev: bool = False
    drain_seconds: float = 5.0
    origins: tuple[str, ...] = ()
    append_missing_nul: bool = False
    prefixes: Prefixes = Prefixes()
    endpoints: Endpoints = Endpoints()
    heart_beat: HeartBeat = HeartBeat()
    limits: Limits = Limits()
    delivery: Delivery = Delivery()
    auth: Auth = Auth()
    log: Log = Log()
    channels: tuple[Channel, ...] = field(default=(), name="channel")
