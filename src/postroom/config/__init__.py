"""Settings: defaults < `postroom.toml` < `POSTROOM_*` < the command line."""

from postroom.config.loading import check_authentication, check_made, load, settings_from
from postroom.config.placing import placed
from postroom.config.settings import (
    EMBEDDED,
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
    "EMBEDDED",
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
    "check_made",
    "load",
    "placed",
    "settings_from",
]
