"""The `[[channel]]` tables of the settings."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from postroom.channel import DAY, Channel, ChannelRegistry, Permission, Retention
from postroom.config.lines import Lines
from postroom.config.units import units
from postroom.destination import user_name
from postroom.errors import ConfigurationError, UnknownDestination

_CHANNEL_KEYS: Final = frozenset(Channel.__struct_fields__)


def channels_of(tree: Mapping[str, Any], lines: Lines) -> tuple[Channel, ...]:
    """The channels of a settings' file. Raises ConfigurationError: one line, with its place."""
    channels = [_channel(entry, lines, at) for at, entry in enumerate(_tables(tree, lines))]
    _check_channels(channels, lines)
    return tuple(channels)


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
    made = dict(units(entry))
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
        if len(users) + len(roles) == len(value) and all(roles):
            try:
                names = frozenset(str(user_name(user)) for user in users)
            except UnknownDestination as error:
                raise ConfigurationError(f"{where}: {error}") from error
            return Permission(everyone=False, users=names, roles=frozenset(roles))
    raise ConfigurationError(f'{where}: write "everyone", "nobody", or a list such as ["user:alice", "role:admin"]')


def _retention(value: Mapping[str, Any], lines: Lines, at: int, name: str) -> Retention:
    made = {key.replace("-", "_"): item for key, item in value.items()}
    place = f"{lines.where(['channel', at, 'retention'])}: {name}: retention"
    if "days" in made:
        days = made.pop("days")
        if "seconds" in made:
            raise ConfigurationError(f"{place}: days and seconds are both given; give one")
        if isinstance(days, bool) or not isinstance(days, int | float):
            raise ConfigurationError(f'{place}: days is a number, not {days!r}; or write seconds = "12h"')
        made["seconds"] = days * DAY
    known = Retention.__struct_fields__
    for key in made:
        if key not in known:
            raise ConfigurationError(f"{place} has no {key}; there are days, {', '.join(known)}")
    try:
        return msgspec.convert(made, Retention)
    except msgspec.ValidationError as error:
        said, _, key = str(error).partition(" - at `$.")
        raise ConfigurationError(f"{place}: {key.rstrip('`')}: {said[:1].lower()}{said[1:]}") from None


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
