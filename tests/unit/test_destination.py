"""Destinations are parsed once; patterns match as Ant's do."""

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.destination import AppPath, Destinations, Pattern, Prefixes, Topic, UserQueue, user_destination, user_name
from postroom.errors import UnknownDestination
from postroom.identity import UserName

BOB = UserName("bob")


@pytest.fixture
def destinations() -> Destinations:
    return Destinations(Prefixes())


def test_a_send_names_a_topic_a_user_or_a_handler(destinations: Destinations) -> None:
    assert destinations.to_send("/topic/news") == Topic("/topic/news")
    assert destinations.to_send("/queue/jobs") == Topic("/queue/jobs")
    assert destinations.to_send("/user/bob/queue/inbox") == UserQueue(BOB, "/queue/inbox")
    assert destinations.to_send("/app/orders/7") == AppPath("/orders/7")


def test_a_subscription_below_user_is_the_subscribers_own(destinations: Destinations) -> None:
    assert destinations.to_subscribe("/user/queue/inbox", BOB) == UserQueue(BOB, "/queue/inbox")
    assert destinations.to_subscribe("/user/anna/queue/inbox", BOB) == UserQueue(BOB, "/anna/queue/inbox")


def test_a_users_name_is_percent_encoded(destinations: Destinations) -> None:
    name = UserName("a/b ü%")
    assert destinations.to_send(user_destination(name, "/queue/x")) == UserQueue(name, "/queue/x")


@pytest.mark.parametrize(
    "name", ["x" * 255, "日本語" * 85, "😀" * 255, "%" * 255], ids=["x", "cjk", "emoji", "percent"]
)
def test_whoever_may_connect_can_be_sent_to(destinations: Destinations, name: str) -> None:
    """A name of 255 characters is 3,060 long where it is encoded."""
    user = user_name(name)
    rest = "/queue/" + "y" * (255 - len("/user/") - len("/queue/"))
    assert destinations.to_send(user_destination(user, rest)) == UserQueue(user, rest)
    assert destinations.to_subscribe("/user" + rest, user) == UserQueue(user, rest)
    with pytest.raises(UnknownDestination, match="at most 255"):
        destinations.to_send(user_destination(user, rest + "y"))
    with pytest.raises(UnknownDestination, match=r"at most 255|1 to 255"):
        destinations.to_send(user_destination(UserName(name + "x"), "/queue/y"))


def test_prefixes_can_be_others() -> None:
    other = Destinations(Prefixes(user="/me", app=("/message",), broker=("/news",)))
    assert other.to_send("/message/hello") == AppPath("/hello")
    assert other.to_send("/news/today") == Topic("/news/today")
    assert other.to_send("/me/bob/x") == UserQueue(BOB, "/x")
    with pytest.raises(UnknownDestination):
        other.to_send("/topic/x")


@pytest.mark.parametrize(
    "text",
    ["", "topic/x", "/", "/topic", "/topic/", "/topic//x", "/topic/../x", "/topic/./x", "/elsewhere/x", "/user/bob",
     "/topic/a\nb", "/topic/" + "x" * 300, "/user//queue/x", "/topicx/a"],
)  # fmt: skip
def test_what_is_no_destination_is_refused(destinations: Destinations, text: str) -> None:
    with pytest.raises(UnknownDestination):
        destinations.to_send(text)


def test_two_malformed_names_are_not_one_user(destinations: Destinations) -> None:
    for text in ("/user/%ff/queue/x", "/user/%fe/queue/x", "/user/%c3/queue/x"):
        with pytest.raises(UnknownDestination, match="UTF-8"):
            destinations.to_send(text)


@pytest.mark.parametrize("char", ["\u2028", "\u2029", "\x85", "\x7f", "\u202e", "\ud800"])
def test_no_name_starts_a_line_or_turns_the_text(char: str) -> None:
    with pytest.raises(UnknownDestination):
        user_name(f"an{char}na")


def test_one_name_in_two_unicode_forms_is_one_user(destinations: Destinations) -> None:
    assert user_name("Zoe\u0308") == user_name("Zo\u00eb")
    assert destinations.to_send("/topic/Zoe\u0308") == destinations.to_send("/topic/Zo\u00eb")


@given(st.text(max_size=40))
def test_no_text_does_worse_than_be_refused(text: str) -> None:
    with contextlib.suppress(UnknownDestination):
        Destinations(Prefixes()).to_send(text)


def slow_match(pattern: str, text: str) -> bool:
    """Ant's rules, as a regular expression made segment by segment."""
    out, parts = "", pattern.split("/")
    for at, part in enumerate(parts):
        slash = "/" if at else ""
        if part == "**":
            out += f"(?:{slash}[^/]*)*" if at else "[^/]*(?:/[^/]*)*"
        else:
            part = re.sub(r"\{[^{}]*\}", "*", part)
            out += slash + "".join("[^/]*" if c == "*" else "[^/]" if c == "?" else re.escape(c) for c in part)
    return re.fullmatch(out, text) is not None


segments = st.sampled_from(["a", "b", "ab", "*", "**", "a*", "?", "{x}"])
texts = st.lists(st.sampled_from(["a", "b", "ab", "abc"]), min_size=1, max_size=5)


@given(st.lists(segments, min_size=1, max_size=5), texts)
def test_patterns_match_as_their_regular_expression(pattern: list[str], text: list[str]) -> None:
    made, asked = "/" + "/".join(pattern), "/" + "/".join(text)
    assert Pattern(made).matches(asked) == slow_match(made, asked)


@given(st.lists(segments, min_size=1, max_size=4), st.lists(segments, min_size=1, max_size=4), texts)
def test_patterns_that_match_one_text_overlap(left: list[str], right: list[str], text: list[str]) -> None:
    a, b = Pattern("/" + "/".join(left)), Pattern("/" + "/".join(right))
    asked = "/" + "/".join(text)
    if a.matches(asked) and b.matches(asked):
        assert a.overlaps(b)
        assert b.overlaps(a)


def test_overlap_is_not_everywhere() -> None:
    assert not Pattern("/topic/*").overlaps(Pattern("/topic/a/b"))
    assert not Pattern("/topic/a/**").overlaps(Pattern("/topic/b/**"))


def test_variables_are_named_segments() -> None:
    assert Pattern("/orders/{id}/items/{item}").variables("/orders/7/items/x") == {"id": "7", "item": "x"}
    assert Pattern("/orders/{id}").variables("/orders") is None


def test_hostile_patterns_take_little_time() -> None:
    assert not Pattern("/" + "/".join(["**"] * 20) + "/z").matches("/" + "/".join(["a"] * 100))
    assert not Pattern("/" + "*a" * 60 + "b").matches("/" + "a" * 200)
