"""Settings: defaults < `postroom.toml` < `POSTROOM_*` < the command line."""

from postroom.config.loading import check_authentication, load, settings_from
from postroom.config.settings import (
    Auth,
    CookieAuth,
    Delivery,
    Endpoints,
    HeaderAuth,
    HeartBeat,
    JwtAuth,
    Limits,
    Log,
    Settings,
    Tls,
)

__all__ = [
    "Auth",
    "CookieAuth",
    "Delivery",
    "Endpoints",
    "HeaderAuth",
    "HeartBeat",
    "JwtAuth",
    "Limits",
    "Log",
    "Settings",
    "Tls",
    "check_authentication",
    "load",
    "settings_from",
]
