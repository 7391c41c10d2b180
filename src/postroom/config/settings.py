"""The settings of a node: every key, its default and its unit."""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct, field

from postroom.channel import Channel
from postroom.destination import Prefixes

Count = Annotated[int, Meta(ge=1, le=1 << 53)]
Milliseconds = Annotated[int, Meta(ge=0, le=86_400_000)]
Seconds = Annotated[float, Meta(ge=0, le=86_400)]
Deadline = Annotated[float, Meta(gt=0, le=86_400)]
Text = Annotated[str, Meta(min_length=1)]
Port = Annotated[int, Meta(ge=0, le=65_535)]

EMBEDDED: Final = "embedded:"
"""The store of several workers where none is named: a Valkey that `postroom serve` starts for them."""


class Endpoints(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """Where WebSockets are served: plain STOMP, and the prefix of SockJS."""

    stomp: str = "/ws"
    sockjs: str = "/chat-websocket"


class HeartBeat(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """What the server offers (STOMP, "Heart-beating"): sends at least so often, wants to hear so often; ms, 0 off."""

    send_ms: Milliseconds = 10_000
    receive_ms: Milliseconds = 10_000


class Limits(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """What one client may use. Each limit has a clear refusal."""

    max_message_bytes: Count = 262_144
    max_headers: Count = 64
    max_header_bytes: Count = 8_192
    subscriptions_per_session: Count = 256
    sessions: Count = 1_000_000
    sessions_per_user: Count = 10_000
    sessions_per_address: Count = 100_000
    frames_per_second: Count = 100_000
    transactions: Count = 10
    pending_appends: Count = 1_024
    pending_append_bytes: Count = 1_048_576
    write_buffer_bytes: Count = 1_048_576
    request_seconds: Deadline = 10.0
    connect_seconds: Deadline = 10.0


class Delivery(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """How durable messages reach a subscription."""

    max_in_flight_messages: Count = 1_000
    max_in_flight_bytes: Count = 1_048_576
    confirm_seconds: Seconds = 0.05
    confirm_batch: Count = 256
    page_messages: Count = 200
    probe_timeout_seconds: Deadline = 30.0


class Cluster(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """How nodes know one another. A node renews its lease every `renew_seconds`; it ends after `lease_seconds`."""

    lease_seconds: Deadline = 10.0
    renew_seconds: Deadline = 2.0
    heartbeat_seconds: Deadline = 2.0
    reconcile_seconds: Deadline = 60.0
    route_cache_seconds: Seconds = 1.0


class JwtAuth(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """JSON Web Tokens, at the handshake (`Authorization: Bearer`) or in CONNECT (`Authorization`, `passcode`)."""

    algorithms: Annotated[tuple[str, ...], Meta(min_length=1)]
    key: str | None = None
    key_file: str | None = None
    jwks_file: str | None = None
    audience: str | None = None
    issuer: str | None = None
    user_claim: Text = "sub"
    roles_claim: Text = "roles"
    leeway_seconds: Seconds = 30.0


class CookieAuth(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """A session cookie that Postroom's own login or another application signs with the same secret."""

    secret: str
    name: str = "postroom"
    max_age_seconds: Annotated[float, Meta(ge=1, le=315_360_000)] = 86_400.0


class HeaderAuth(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """A header that a trusted proxy sets, believed only from these networks."""

    name: Text
    trusted: Annotated[tuple[str, ...], Meta(min_length=1)]


class Auth(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """Who may come in; tried in this order."""

    jwt: JwtAuth | None = None
    cookie: CookieAuth | None = None
    header: HeaderAuth | None = None


class Tls(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """Files (PEM) of the certificate, with its chain, and of its key. All ports speak TLS then."""

    certificate: Text
    key: Text


class Compression(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """permessage-deflate (RFC 7692): each message of `min_bytes` or more by itself, if the client offers it."""

    enabled: bool = False
    window_bits: Annotated[int, Meta(ge=9, le=15)] = 12
    level: Annotated[int, Meta(ge=1, le=9)] = 1
    min_bytes: Count = 256


class SockJS(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """SockJS's transports: which there are beside those over XHR and EventSource, and how long they wait."""

    websocket: bool = True
    jsonp: bool = False
    iframe: bool = False
    cookie: bool = False
    client_url: Text = "https://cdn.jsdelivr.net/npm/sockjs-client@1.6.1/dist/sockjs.min.js"
    heartbeat_seconds: Deadline = 25.0
    disconnect_seconds: Deadline = 5.0
    response_bytes: Count = 131_072
    prove_seconds: Deadline = 2.0


class Log(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class Settings(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """Defaults < `postroom.toml` < `POSTROOM_*` < the command line."""

    node_id: Text = "node-1"
    workers: Annotated[int, Meta(ge=1, le=64)] = 1
    host: Text = "127.0.0.1"
    port: Port = 8080
    unix_socket: Text | None = None
    stomp_port: Port | None = None
    store: Text = "sqlite:///postroom-data/postroom.db"
    backplane: str = ""
    routing: Literal["broadcast", "directory", "subject"] = "directory"
    dev: bool = False
    drain_seconds: Seconds = 5.0
    origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    append_missing_nul: bool = False
    prefixes: Prefixes = Prefixes()
    endpoints: Endpoints = Endpoints()
    heart_beat: HeartBeat = HeartBeat()
    limits: Limits = Limits()
    delivery: Delivery = Delivery()
    cluster: Cluster = Cluster()
    auth: Auth = Auth()
    tls: Tls | None = None
    compression: Compression = Compression()
    sockjs: SockJS = SockJS()
    log: Log = Log()
    channels: tuple[Channel, ...] = field(default=(), name="channel")
