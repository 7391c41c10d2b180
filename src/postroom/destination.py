"""Destinations: parsed once at the edge, matched afterwards; and Ant-style patterns over them."""

import unicodedata
from typing import Final
from urllib.parse import quote, unquote

from msgspec import Struct

from postroom.errors import UnknownDestination
from postroom.identity import UserName

MAX_DESTINATION_LENGTH: Final = 255
_ENCODED: Final = 12
"""What percent-encoding makes of one character, at the most."""
_CACHE_SIZE: Final = 4096


class Topic(Struct, frozen=True, gc=False):
    """A broadcast destination, `/topic/...` or `/queue/...`; `name` is the whole of it."""

    name: str


class UserQueue(Struct, frozen=True, gc=False):
    """A destination of one user; `name` is what stands behind the user: `/queue/inbox`."""

    user: UserName
    name: str


class AppPath(Struct, frozen=True, gc=False):
    """A destination that an application handler serves; `name` is what stands behind the prefix."""

    name: str


Destination = Topic | UserQueue | AppPath


class Prefixes(Struct, frozen=True, forbid_unknown_fields=True):
    """Which first segments mean what. Spring applications often use `/message` for `app`."""

    user: str = "/user"
    app: tuple[str, ...] = ("/app",)
    broker: tuple[str, ...] = ("/topic", "/queue")


class Destinations:
    """Reads the text of destinations under one set of prefixes.

    A destination has at most 255 characters, not counting the user's name that it holds, which has so many of its
    own. It starts with `/`, and has no empty, `.` or `..` segment and no control character. It is brought to
    Unicode NFC; case matters. Results are cached.
    """

    __slots__ = ("_cache", "_prefixes")

    def __init__(self, prefixes: Prefixes) -> None:
        self._prefixes = prefixes
        self._cache: dict[str, Destination] = {}

    def to_send(self, text: str) -> Destination:
        """Where a SEND goes: `/user/{name}/...` names another user, percent-encoded.

        Raises UnknownDestination, with a sentence that says what is wrong.
        """
        found = self._cache.get(text)
        if found is None:
            found = self._parse(text)
            if len(self._cache) >= _CACHE_SIZE:
                self._cache.clear()
            self._cache[text] = found
        return found

    def to_subscribe(self, text: str, user: UserName) -> Destination:
        """What a SUBSCRIBE means: `/user/...` is the subscriber's own. Raises UnknownDestination."""
        canonical = _canonical(text)
        rest = _behind(canonical, self._prefixes.user)
        if rest is not None:
            return UserQueue(user, rest)
        return self._parse(canonical)

    def of_user(self, user: UserName, name: str) -> UserQueue:
        """What stands behind `/user` in a subscription of `user`: `/queue/reply`. Raises UnknownDestination."""
        return UserQueue(user, _canonical(name))

    def _parse(self, text: str) -> Destination:
        of_user = _behind(text, self._prefixes.user) is not None
        text = _canonical(text, MAX_DESTINATION_LENGTH * (1 + _ENCODED) if of_user else MAX_DESTINATION_LENGTH)
        rest = _behind(text, self._prefixes.user)
        if rest is not None:
            user, slash, name = rest[1:].partition("/")
            _bound(len(text) - len(user))
            if not slash:
                raise UnknownDestination(f"{text!r} names a user but no destination: /user/{{name}}/queue/...")
            return UserQueue(_decoded(user), "/" + name)
        for prefix in self._prefixes.app:
            rest = _behind(text, prefix)
            if rest is not None:
                return AppPath(rest)
        for prefix in self._prefixes.broker:
            if _behind(text, prefix) is not None:
                return Topic(text)
        raise UnknownDestination(f"nothing is served at {text!r}: use {', '.join(self._served())}")

    def _served(self) -> list[str]:
        return [f"{p}/..." for p in (*self._prefixes.broker, self._prefixes.user, *self._prefixes.app)]


def user_name(text: str) -> UserName:
    """The canonical form of a user's name: NFC, 1 to 255 characters, none of them a control character.

    Raises UnknownDestination where it has none.
    """
    name = text if text.isascii() else unicodedata.normalize("NFC", text)
    if not name or len(name) > MAX_DESTINATION_LENGTH or not _printable(name):
        raise UnknownDestination("a user name has 1 to 255 characters, none of them a control character")
    return UserName(name)


def _decoded(user: str) -> UserName:
    try:
        return user_name(unquote(user, errors="strict"))
    except UnicodeDecodeError:
        raise UnknownDestination(f"{user!r} is no user name: what is percent-encoded is UTF-8") from None


def user_destination(user: UserName, name: str) -> str:
    """The text under which `name` of `user` is sent to: `/user/{percent-encoded user}{name}`."""
    return f"/user/{quote(user, safe='')}{name}"


def _behind(text: str, prefix: str) -> str | None:
    if text.startswith(prefix) and text[len(prefix) : len(prefix) + 1] == "/":
        return text[len(prefix) :]
    return None


def _bound(length: int, longest: int = MAX_DESTINATION_LENGTH) -> None:
    if length > longest:
        raise UnknownDestination(f"a destination has at most {MAX_DESTINATION_LENGTH} characters")


def _canonical(text: str, longest: int = MAX_DESTINATION_LENGTH) -> str:
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    _bound(len(text), longest)
    if not text.startswith("/"):
        raise UnknownDestination(f"a destination starts with '/', {text!r} does not")
    segments = text[1:].split("/")
    if "" in segments or "." in segments or ".." in segments or not _printable(text):
        raise UnknownDestination(f"{text!r} has an empty or dotted segment or a control character")
    return text


def _printable(text: str) -> bool:
    if text.isprintable():
        return True
    # Separators of lines and paragraphs start a new line for some readers, as control characters do for all.
    return not any(unicodedata.category(char) in ("Zl", "Zp") or unicodedata.category(char)[0] == "C" for char in text)


class Pattern:
    """An Ant-style pattern over destinations: `*` and `{x}` stand for one segment or a part of it, `?` for one
    character, `**` for any number of whole segments. Matching takes linear time for all but `**`, and never
    worse than the product of both lengths.
    """

    __slots__ = ("_segments", "literal", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._segments = [_segment(part) for part in text.split("/")]
        self.literal = all(not wild for _, wild in self._segments)

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def matches(self, text: str) -> bool:
        """Whether the whole of `text` is covered."""
        if self.literal:
            return text == self.text
        return _match_segments(self._segments, text.split("/"))

    def overlaps(self, other: "Pattern") -> bool:
        """Whether some destination could match both. It errs to yes where segments are only partly wild."""
        return _overlap(self._segments, other._segments)

    def variables(self, text: str) -> dict[str, str] | None:
        """The segments that `{x}` stands for, by name; None where `text` does not match."""
        if not self.matches(text):
            return None
        names = [part[1:-1] if part[:1] == "{" and part[-1:] == "}" else "" for part in self.text.split("/")]
        if "**" in self.text.split("/"):
            names = names[: self.text.split("/").index("**")]
        return {name: value for name, value in zip(names, text.split("/"), strict=False) if name}


def _segment(part: str) -> tuple[str, bool]:
    while "{" in part and "}" in part[part.index("{") :]:
        start = part.index("{")
        part = part[:start] + "*" + part[part.index("}", start) + 1 :]
    return part, "*" in part or "?" in part


def _match_segments(pattern: list[tuple[str, bool]], text: list[str]) -> bool:
    at, seen, star, back = 0, 0, -1, 0
    while seen < len(text):
        if at < len(pattern) and pattern[at][0] == "**":
            star, back = at, seen
            at += 1
        elif at < len(pattern) and _match_one(*pattern[at], text[seen]):
            at += 1
            seen += 1
        elif star >= 0:
            back += 1
            at, seen = star + 1, back
        else:
            return False
    return all(part == "**" for part, _ in pattern[at:])


def _overlap(left: list[tuple[str, bool]], right: list[tuple[str, bool]]) -> bool:
    """Two patterns as automata, advanced side by side: a table of which pairs of rests can meet."""
    meets = [[False] * (len(right) + 1) for _ in range(len(left) + 1)]
    for at in range(len(left), -1, -1):
        for to in range(len(right), -1, -1):
            a = left[at][0] if at < len(left) else None
            b = right[to][0] if to < len(right) else None
            if a is None and b is None:
                meets[at][to] = True
            elif a == "**" or b == "**":
                meets[at][to] = (a is not None and meets[at + 1][to]) if a == "**" else False
                meets[at][to] |= (b is not None and meets[at][to + 1]) if b == "**" else False
                if a is not None and b is not None:
                    meets[at][to] |= meets[at + 1][to] if b == "**" else meets[at][to + 1]
            elif a is not None and b is not None:
                wild = left[at][1] or right[to][1]
                meets[at][to] = (wild or a == b) and meets[at + 1][to + 1]
    return meets[0][0]


def _match_one(pattern: str, wild: bool, text: str) -> bool:
    if not wild:
        return pattern == text
    if pattern == "*":
        return True
    at, seen, star, back = 0, 0, -1, 0
    while seen < len(text):
        if at < len(pattern) and pattern[at] == "*":
            star, back = at, seen
            at += 1
        elif at < len(pattern) and pattern[at] in ("?", text[seen]):
            at += 1
            seen += 1
        elif star >= 0:
            back += 1
            at, seen = star + 1, back
        else:
            return False
    return pattern[at:].strip("*") == ""
