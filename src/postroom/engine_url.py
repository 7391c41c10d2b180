"""The URL of an engine taken apart: its servers, who one is there, and the options after `?`."""

import difflib
import ssl
from collections.abc import Collection
from typing import Annotated, Final, Generic, TypeVar
from urllib.parse import parse_qsl, unquote

import msgspec
from msgspec import Meta, Struct

from postroom.errors import ConfigurationError

Seconds = Annotated[float, Meta(gt=0, le=3600)]
"""A time limit in an option."""

Prefix = Annotated[str, Meta(min_length=1, max_length=60, pattern=r"^[A-Za-z0-9_-]+$")]
"""What sets one cluster's names apart from another's on the same servers."""

_PORTS: Final = range(1, 65_536)


class TlsOptions(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """Whom to trust, and who one is: PEM files. Without `ca_file` the system's authorities are trusted."""

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None


Options = TypeVar("Options", bound=Struct)


class EngineUrl(Struct, Generic[Options], frozen=True):
    """`scheme://[username[:password]@]host[:port][,host[:port]…][/path][?options]`. Without a host, a path."""

    scheme: str
    hosts: tuple[tuple[str, int], ...]
    username: str | None
    password: str | None
    path: str
    options: Options


def take_apart(url: str, options: type[Options], *, port: int, local: bool = False) -> EngineUrl[Options]:
    """Take `url` apart; `port` is that of a host that names none; a `local` one may name no host.

    What it raises, ConfigurationError, says no password.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise ConfigurationError(f"{scheme.partition(':')[0]}: write {scheme.partition(':')[0]}://host:port")
    address, _, query = rest.partition("?")
    address, _, path = address.partition("/")
    credentials, at, places = address.rpartition("@")
    username, _, password = credentials.partition(":")
    told, _ = options_of(scheme, query, options)
    return EngineUrl(
        scheme,
        () if local and not places else tuple(_host(scheme, place, port) for place in places.split(",")),
        unquote(username) or None if at else None,
        unquote(password) or None if at else None,
        path,
        told,
    )


def options_of(
    scheme: str, query: str, options: type[Options], *, beside: Collection[str] = ()
) -> tuple[Options, dict[str, str]]:
    """What `query` says, and what it says of the options `beside`, which are somebody else's.

    Raises ConfigurationError, which names the option that is wrong, or those that there are.
    """
    known = [field.encode_name for field in msgspec.structs.fields(options)]
    try:
        given = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    except ValueError:
        raise ConfigurationError(f"{scheme}://…: the options after ? are written name=value&name=value") from None
    theirs = {name: given.pop(name) for name in beside if name in given}
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, [*known, *beside], 1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted([*known, *beside]))}"
            raise ConfigurationError(f"{scheme}://…: there is no option {name}; {hint}")
    try:
        return msgspec.convert(given, options, strict=False), theirs
    except msgspec.ValidationError as error:
        said, _, place = str(error).partition(" - at `$.")
        raise ConfigurationError(f"{scheme}://…: {place.rstrip('`')}: {said[:1].lower()}{said[1:]}") from None


def _host(scheme: str, place: str, port: int) -> tuple[str, int]:
    host, colon, number = place.rpartition(":")
    if not colon or (place.startswith("[") and place.endswith("]")):
        host, number = place, str(port)
    if not host or not number.isdecimal() or int(number) not in _PORTS:
        raise ConfigurationError(f"{scheme}://…: {place!r} is no host:port")
    return host.strip("[]"), int(number)


def tls_context(scheme: str, options: TlsOptions) -> ssl.SSLContext:
    """What verifies the servers' certificates. Raises ConfigurationError where a file cannot be used."""
    try:
        context = ssl.create_default_context(cafile=options.ca_file)
        if options.cert_file is not None:
            context.load_cert_chain(options.cert_file, options.key_file)
    except (OSError, ssl.SSLError) as error:
        files = (options.ca_file, options.cert_file, options.key_file)
        named = ", ".join(file for file in files if file is not None)
        raise ConfigurationError(f"{scheme}://…: {named} cannot be used: {error}") from error
    return context
