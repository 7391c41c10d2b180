"""Reading settings: file, environment, command line; what is wrong is said in one line, with its place."""

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from postroom.channel import Channel, ChannelRegistry, Permission, Retention
from postroom.config.lines import Lines
from postroom.config.settings import Settings
from postroom.errors import ConfigurationError

DEFAULT_FILE: Final = Path("postroom.toml")
_NO_SETTING: Final = frozenset({"POSTROOM_CONFIG", "POSTROOM_REQUIRE_SERVICES", "POSTROOM_SCREENSHOT"})
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_SIZE: Final = re.compile(r"(\d+)\s*(B|kB|KiB|MB|MiB|GB|GiB)")
_BYTES: Final = {"B": 1, "kB": 1000, "KiB": 1024, "MB": 10**6, "MiB": 1 << 20, "GB": 10**9, "GiB": 1 << 30}
_CHANNEL_KEYS: Final = frozenset(
    {"code", "description", "destination", "delivery", "retention", "history", "proof", "send", "subscribe"}
)


def load(path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, Any]) -> Settings:
    """The settings of a node. `overrides` (the command line) skips None.

    `path` None means `postroom.toml` where there is one. Raises ConfigurationError: one line, with the file's
    name and line where that is what is wrong.
    """
    lines, tree = _read(path)
    channels = [_channel(entry, lines, at) for at, entry in enumerate(_tables(tree, lines))]
    _check_channels(channels, lines)
    tree.pop("channel", None)
    settings = _convert(tree, lines)
    merged: dict[str, Any] = msgspec.to_builtins(settings)
    merged.pop("channel", None)
    _environment(merged, environ)
    merged |= {name.replace("_", "-"): value for name, value in overrides.items() if value is not None}
    return msgspec.structs.replace(_convert(merged, None), channels=tuple(channels))


def check_authentication(settings: Settings) -> None:
    """Nobody walks in by accident: raise ConfigurationError where nothing says who a client is."""
    auth = settings.auth
    if not settings.dev and auth.jwt is None and auth.cookie is None and auth.header is None:
        raise ConfigurationError(
            "no authentication is configured: set [auth.jwt], [auth.cookie] or [auth.header] in postroom.toml,"
            " or use --dev for development"
        )


def _read(path: Path | None) -> tuple[Lines, dict[str, Any]]:
    file = path if path is not None else DEFAULT_FILE
    if path is None and not file.exists():
        return Lines("", str(file)), {}
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        return Lines(text, str(file)), _kebab(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        at = f"{file}:{found[1]}" if found else str(file)
        raise ConfigurationError(f"{at}: this is not TOML: {error}") from error


def _kebab(value: Any) -> Any:
    if isinstance(value, dict):
        return {key.replace("_", "-"): _kebab(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_kebab(item) for item in value]
    return value


def _convert(tree: Mapping[str, Any], lines: Lines | None) -> Settings:
    try:
        return msgspec.convert(_units(tree), Settings, strict=lines is not None)
    except msgspec.ValidationError as error:
        said, _, place = str(error).partition(" - at `$")
        keys = [key for key in re.split(r"[.\[\]]+", place.rstrip("`")) if key]
        unknown = re.search(r"unknown field `([^`]+)`", said)
        if unknown:
            keys.append(unknown[1])
            said = f"there is no setting {'.'.join(keys)}{_like(keys)}"
        else:
            said = f"{'.'.join(keys)}: {said[:1].lower()}{said[1:]}"
        where = lines.where(keys) if lines is not None else "the environment or command line"
        raise ConfigurationError(f"{where}: {said}") from None


def _like(keys: Sequence[str]) -> str:
    known: Any = Settings
    for key in keys[:-1]:
        field = next((f for f in msgspec.structs.fields(known) if f.encode_name == key), None)
        known = getattr(field, "type", None)
        if not (isinstance(known, type) and issubclass(known, msgspec.Struct)):
            return ""
    names = [f.encode_name for f in msgspec.structs.fields(known)]
    close = difflib.get_close_matches(keys[-1], names, 1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(sorted(names))}"


def _units(value: Any, key: str = "") -> Any:
    """Durations and sizes in words, by the end of their key, as numbers."""
    if isinstance(value, Mapping):
        return {name: _units(item, name) for name, item in value.items()}
    if isinstance(value, str):
        if key.endswith("seconds") and (found := _DURATION.fullmatch(value)):
            return float(found[1]) * _SECONDS[found[2]]
        if key.endswith("bytes") and (found := _SIZE.fullmatch(value)):
            return int(found[1]) * _BYTES[found[2]]
    return value


# ── channels ──────────────────────────────────────────────────────────────────────────────────────────────


def _tables(tree: Mapping[str, Any], lines: Lines) -> list[Mapping[str, Any]]:
    found = tree.get("channel", [])
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise ConfigurationError(f"{lines.where(['channel'])}: write each channel as a table of its own: [[channel]]")
    return found


def _channel(entry: Mapping[str, Any], lines: Lines, at: int) -> Channel:
    name = f"channel {entry.get('code', at + 1)}"
    for key in entry:
        if key not in _CHANNEL_KEYS:
            close = difflib.get_close_matches(key, _CHANNEL_KEYS, 1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(_CHANNEL_KEYS))}"
            raise ConfigurationError(f"{lines.where(['channel', at, key])}: {name}: there is no {key}; {hint}")
    made = dict(_units(entry))
    for key in ("send", "subscribe"):
        if key in made:
            made[key] = _permission(made[key], f"{lines.where(['channel', at, key])}: {name}: {key}")
    if isinstance(made.get("retention"), dict):
        made["retention"] = _retention(made["retention"], lines, at, name)
    try:
        for key, kind in (("code", str), ("destination", str), ("history", int), ("description", str)):
            if key in made and type(made[key]) is not kind:
                raise msgspec.ValidationError(f"expected {kind.__name__} - at `$.{key}`")
        return msgspec.convert(made, Channel)
    except msgspec.ValidationError as error:
        said, _, place = str(error).partition(" - at `$")
        key = place.strip(".`").partition(".")[0]
        missing = re.search(r"missing required field `([^`]+)`", said)
        if missing:
            raise ConfigurationError(f"{lines.where(['channel', at])}: {name}: {missing[1]} is missing") from None
        where = lines.where(["channel", at, key]) if key else lines.where(["channel", at])
        raise ConfigurationError(f"{where}: {name}: {key}: {said[:1].lower()}{said[1:]}") from None


def _permission(value: Any, where: str) -> Permission:
    if value in ("everyone", ["everyone"]):
        return Permission()
    if value in ("nobody", []):
        return Permission(everyone=False)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        users = [item[5:] for item in value if item.startswith("user:")]
        roles = [item[5:] for item in value if item.startswith("role:")]
        if len(users) + len(roles) == len(value):
            return Permission(everyone=False, users=frozenset(users), roles=frozenset(roles))
    raise ConfigurationError(f'{where}: write "everyone", "nobody", or a list such as ["user:alice", "role:admin"]')


def _retention(value: Mapping[str, Any], lines: Lines, at: int, name: str) -> Retention:
    made = {key.replace("-", "_"): item for key, item in value.items()}
    if "days" in made:
        made["seconds"] = made.pop("days") * 86_400.0
    known = Retention.__struct_fields__
    for key in made:
        if key not in known:
            where = lines.where(["channel", at, "retention"])
            raise ConfigurationError(f"{where}: {name}: retention has no {key}; there are days, {', '.join(known)}")
    try:
        return msgspec.convert(made, Retention)
    except msgspec.ValidationError as error:
        where = lines.where(["channel", at, "retention"])
        raise ConfigurationError(f"{where}: {name}: retention: {error}") from None


def _check_channels(channels: Sequence[Channel], lines: Lines) -> None:
    for at in range(len(channels)):
        try:
            ChannelRegistry(channels[: at + 1])
        except ConfigurationError as error:
            said = str(error)
            _, _, what = said.partition(": ")
            named = [key for key in _CHANNEL_KEYS if key in what]
            key = min(named, key=what.index, default="")  # the sentence begins with what is wrong
            raise ConfigurationError(f"{lines.where(['channel', at, key])}: {said}") from None


# ── environment ───────────────────────────────────────────────────────────────────────────────────────────


def _environment(tree: dict[str, Any], environ: Mapping[str, str]) -> None:
    names = _names(Settings, ())
    for variable, text in environ.items():
        if not variable.startswith("POSTROOM_") or variable in _NO_SETTING:
            continue
        path = names.get(variable)
        if path is None:
            close = difflib.get_close_matches(variable, names, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ConfigurationError(f"the environment: there is no setting {variable}{hint}")
        at = tree
        for key in path[:-1]:
            if at.get(key) is None:
                at[key] = {}
            at = at[key]
        at[path[-1]] = text.split(",") if path[-1] in ("origins", "algorithms", "trusted", "app", "broker") else text


def _names(kind: Any, path: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for field in msgspec.structs.fields(kind):
        here = (*path, field.encode_name)
        inner = [t for t in (field.type, *getattr(field.type, "__args__", ())) if _is_struct(t)]
        if field.encode_name == "channel":
            continue
        if inner:
            found |= _names(inner[0], here)
        else:
            found["POSTROOM_" + "_".join(here).replace("-", "_").upper()] = here
    return found


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)
