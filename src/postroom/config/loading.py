"""Reading settings: file, environment, command line; what is wrong is said in one line, with its place."""

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, get_args, get_origin

import msgspec

from postroom.config.channels import channels_of
from postroom.config.lines import Lines
from postroom.config.settings import EMBEDDED, Settings
from postroom.config.units import units
from postroom.errors import ConfigurationError
from postroom.transport.forwarded import Networks

DEFAULT_FILE: Final = Path("postroom.toml")
_NO_SETTING: Final = frozenset(
    {
        "POSTROOM_CONFIG",
        "POSTROOM_FAULTS",
        "POSTROOM_REQUIRE_SERVICES",
        "POSTROOM_SCREENSHOT",
        "POSTROOM_SIMULATION_SEEDS",
    }
)
_TESTS: Final = "POSTROOM_TEST_"
"""What begins so is for the tests, which start nodes in their own environment."""
Keys = tuple[str, ...]
_AUTHORITY: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s?#@]+")
_PATH: Final = re.compile(r"(/[^/\s?#]+)+")


def load(
    path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, Any], *, base: Settings | None = None
) -> Settings:
    """The settings of a node. `overrides` (the command line) skips None.

    `path` None means `postroom.toml` where there is one. `base` takes the place of the defaults; its channels stay.
    Several workers have the embedded store unless one is named: see `postroom.workers`. Raises ConfigurationError:
    one line, with the file's name and line where that is what is wrong.
    """
    lines, tree = _read(path)
    channels = channels_of(tree, lines)
    tree.pop("channel", None)
    tree = units(tree)
    variables = _environment(tree, environ)
    tree |= {name.replace("_", "-"): value for name, value in overrides.items() if value is not None}
    settings = _convert(tree, lines, variables)
    if base is not None:
        settings, channels = _over(base, settings, tree), (*base.channels, *channels)
    if settings.workers > 1 and "store" not in tree and settings.store == Settings().store:
        settings = msgspec.structs.replace(settings, store=EMBEDDED)
    _check(settings, lines, variables)
    return msgspec.structs.replace(settings, channels=channels)


def _over(base: Any, given: Any, tree: Mapping[str, Any]) -> Any:
    """`base`, but what `tree` names as in `given`."""
    changed: dict[str, Any] = {}
    for field in msgspec.structs.fields(given):
        if field.encode_name in tree:
            ours, theirs = getattr(base, field.name), getattr(given, field.name)
            inner = tree[field.encode_name]
            whole = not (isinstance(inner, Mapping) and type(ours) is type(theirs))
            changed[field.name] = theirs if whole else _over(ours, theirs, inner)
    return msgspec.structs.replace(base, **changed)


def settings_from(environ: Mapping[str, str]) -> Settings:
    """The settings of a process without a command line: POSTROOM_CONFIG may name the file. Raises as `load`."""
    named = environ.get("POSTROOM_CONFIG")
    return load(Path(named) if named else None, environ, {})


def check_made(settings: Settings) -> None:
    """Raise ConfigurationError where settings that were made in code are none that a file could give."""
    _check(settings, Lines("", "settings"), {})


def check_authentication(settings: Settings) -> None:
    """Nobody walks in by accident: raise ConfigurationError where nothing says who a client is."""
    auth = settings.auth
    if not settings.dev and auth.jwt is None and auth.cookie is None and auth.header is None:
        raise ConfigurationError(
            "no authentication is configured: set [auth.jwt], [auth.cookie] or [auth.header] in postroom.toml,"
            " or use --dev for development"
        )


def lines_of(path: Path | None) -> tuple[Lines, dict[str, Any]]:
    """The lines of a settings' file, and what it holds; of no file, nothing. Raises ConfigurationError."""
    return _read(path)


def _read(path: Path | None) -> tuple[Lines, dict[str, Any]]:
    file = path if path is not None else DEFAULT_FILE
    if path is None and not file.exists():
        return Lines("", str(file)), {}
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        lines = Lines(text, str(file))
        return lines, _kebab(tomllib.loads(text), lines)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        at = f"{file}:{found[1]}" if found else str(file)
        raise ConfigurationError(f"{at}: this is not TOML: {error}") from error


def _kebab(value: Any, lines: Lines, path: tuple[str | int, ...] = ()) -> Any:
    if isinstance(value, list):
        return [_kebab(item, lines, (*path, at)) for at, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    found: dict[str, Any] = {}
    for key, item in value.items():
        name = key.replace("_", "-")
        if name in found:
            raise ConfigurationError(f"{lines.where([*path, name])}: {key} is given twice, with - and with _")
        found[name] = _kebab(item, lines, (*path, name))
    return found


def _convert(tree: Mapping[str, Any], lines: Lines, variables: Mapping[str, Keys]) -> Settings:
    try:
        return msgspec.convert(tree, Settings)
    except msgspec.ValidationError as error:
        said, _, place = str(error).partition(" - at `$")
        keys = [key for key in re.split(r"[.\[\]]+", place.rstrip("`")) if key]
        unknown = re.search(r"unknown field `([^`]+)`", said)
        missing = re.search(r"missing required field `([^`]+)`", said)
        if unknown:
            keys.append(unknown[1])
            said = f"there is no setting {'.'.join(keys)}{_like(keys)}"
        elif missing:
            said = f"{'.'.join(keys)}: {missing[1]} is missing"
        else:
            said = f"{'.'.join(keys)}: {said[:1].lower()}{said[1:]}"
        raise ConfigurationError(f"{_place(keys, lines, variables)}: {said}") from None


def _place(keys: Sequence[str], lines: Lines, variables: Mapping[str, Keys]) -> str:
    named = [variable for variable, path in variables.items() if path[: len(keys)] == tuple(keys)]
    return f"the environment, {named[0]}" if named and not lines.knows(keys) else lines.where(keys)


def _check(settings: Settings, lines: Lines, variables: Mapping[str, Keys]) -> None:
    """What types cannot say."""

    def wrong(keys: Keys, said: str) -> ConfigurationError:
        return ConfigurationError(f"{_place(keys, lines, variables)}: {'.'.join(keys)}: {said}")

    prefixes, endpoints = settings.prefixes, settings.endpoints
    for keys, paths in (
        (("prefixes", "user"), [prefixes.user]),
        (("prefixes", "app"), prefixes.app),
        (("prefixes", "broker"), prefixes.broker),
        (("endpoints", "stomp"), [endpoints.stomp]),
        (("endpoints", "sockjs"), [endpoints.sockjs]),
    ):
        for path in paths:
            if not _PATH.fullmatch(path):
                raise wrong(keys, f"{path!r} must begin with '/', and not end with one, such as '/app'")
    every = [("user", prefixes.user), *(("app", p) for p in prefixes.app), *(("broker", p) for p in prefixes.broker)]
    for name, path in every:
        if [other for _, other in every].count(path) > 1 and (lines.knows(("prefixes", name)) or name == "broker"):
            raise wrong(("prefixes", name), f"{path!r} has one meaning; give user, app and broker different prefixes")
    if endpoints.stomp == endpoints.sockjs:
        named = "stomp" if lines.knows(("endpoints", "stomp")) else "sockjs"
        raise wrong(("endpoints", named), "stomp and sockjs must be different paths")
    for origin in settings.origins:
        if origin != "*" and not _AUTHORITY.fullmatch(origin):
            raise wrong(("origins",), f"{origin!r} must be a scheme and a host, such as 'https://chat.example'")
    ambient = next((name for name in ("cookie", "header") if getattr(settings.auth, name) is not None), None)
    if "*" in settings.origins and ambient is not None:
        # What a browser or a proxy adds by itself speaks for the user, whichever page asked.
        raise wrong(
            ("origins",), f"'*' and [auth.{ambient}] let every page act as whoever is logged in; name the origins"
        )
    try:
        Networks(settings.trusted_proxies)
    except ValueError as error:
        raise wrong(("trusted-proxies",), str(error)) from None
    if not settings.node_id.isprintable():
        raise wrong(("node-id",), "it must not have control characters")


def _like(keys: Sequence[str]) -> str:
    known: Any = Settings
    for key in keys[:-1]:
        field = next((f for f in msgspec.structs.fields(known) if f.encode_name == key), None)
        known = _struct_in(getattr(field, "type", None))
        if known is None:
            return ""
    names = [f.encode_name for f in msgspec.structs.fields(known)]
    close = difflib.get_close_matches(keys[-1], names, 1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(sorted(names))}"


def _environment(tree: dict[str, Any], environ: Mapping[str, str]) -> dict[str, Keys]:
    """Put what `POSTROOM_*` says into `tree`; which variables did, and where."""
    known = _names(Settings, ())
    used: dict[str, Keys] = {}
    for variable, text in environ.items():
        if not variable.startswith("POSTROOM_") or variable.startswith(_TESTS) or variable in _NO_SETTING:
            continue
        if variable not in known:
            close = difflib.get_close_matches(variable, known, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ConfigurationError(f"the environment: there is no setting {variable}{hint}")
        path, kind = known[variable]
        table: Any = tree
        for key in path[:-1]:
            table = table.setdefault(key, {}) if isinstance(table, dict) else None
        if isinstance(table, dict):  # else the file is wrong there, which is told when it is converted
            table[path[-1]] = _from_text(variable, text, path[-1], kind)
            used[variable] = path
    return used


def _from_text(variable: str, text: str, key: str, kind: Any) -> Any:
    plain = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    many = get_origin(plain) is tuple
    value: Any = [part.strip() for part in text.split(",") if part.strip()] if many else units(text.strip(), key)
    try:
        return msgspec.to_builtins(msgspec.convert(value, kind, strict=False))
    except msgspec.ValidationError as error:
        said = str(error)
        raise ConfigurationError(f"the environment, {variable}: {said[:1].lower()}{said[1:]}") from None


def _names(kind: Any, path: Keys) -> dict[str, tuple[Keys, Any]]:
    found: dict[str, tuple[Keys, Any]] = {}
    for field in msgspec.structs.fields(kind):
        here = (*path, field.encode_name)
        if field.encode_name == "channel":
            continue
        inner = _struct_in(field.type)
        if inner is not None:
            found |= _names(inner, here)
        else:
            found["POSTROOM_" + "_".join(here).replace("-", "_").upper()] = (here, field.type)
    return found


def _struct_in(kind: Any) -> type[msgspec.Struct] | None:
    """`X` of `X` and of `X | None`."""
    for inner in (kind, *getattr(kind, "__args__", ())):
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            return inner
    return None
