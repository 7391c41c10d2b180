"""Channels: the first match counts, a contradiction is refused, a code is looked up."""

import pytest

from postroom.channel import Channel, ChannelRegistry, Permission, Retention
from postroom.destination import Topic, UserQueue
from postroom.errors import ConfigurationError
from postroom.identity import Principal, UserName

BOB = Principal(UserName("bob"), frozenset({"staff"}))


def test_without_channels_users_are_durable_and_topics_are_not() -> None:
    registry = ChannelRegistry()
    assert registry.of(UserQueue(BOB.name, "/queue/inbox")).durable
    assert not registry.of(Topic("/topic/news")).durable


def test_the_first_channel_that_covers_a_destination_counts() -> None:
    chat = Channel("CHAT", "/user/*/topic/reply", delivery="durable")
    rest = Channel("REST", "/user/{name}/**", delivery="transient")
    registry = ChannelRegistry([chat, rest])
    assert registry.of(UserQueue(BOB.name, "/topic/reply")).code == "CHAT"
    assert registry.of(UserQueue(BOB.name, "/topic/other")).code == "REST"


def test_the_error_queue_is_never_stored_whatever_is_configured() -> None:
    registry = ChannelRegistry([Channel("ALL", "/user/*/**", delivery="durable")])
    errors = registry.of(UserQueue(BOB.name, "/queue/errors"))
    assert not errors.durable
    assert not errors.send.allows(BOB)


def test_an_unknown_code_names_those_that_exist() -> None:
    with pytest.raises(ConfigurationError, match=r"CHATT.*BROADCAST"):
        ChannelRegistry().by_code("CHATT")


def test_permissions_name_users_and_roles() -> None:
    assert Permission().allows(BOB)
    assert not Permission(everyone=False).allows(BOB)
    assert Permission(everyone=False, users=frozenset({"bob"})).allows(BOB)
    assert Permission(everyone=False, roles=frozenset({"staff"})).allows(BOB)
    assert not Permission(everyone=False, roles=frozenset({"admin"})).allows(BOB)


@pytest.mark.parametrize(
    ("channel", "said"),
    [
        (Channel("", "/topic/x"), "code is missing"),
        (Channel("A", "topic/x"), "must start with '/'"),
        (Channel("A", "/user/bob/x"), "every user"),
        (Channel("A", "/topic/x", delivery="durable"), "history = N"),
        (Channel("A", "/user/*/x", delivery="durable", history=5), "history is for topics"),
        (Channel("A", "/topic/x", history=-1), "negative"),
        (Channel("A", "/topic/x", proof="handled"), "proof"),
        (Channel("A", "/user/*/x", retention=Retention(max_messages=0)), "retention"),
        (Channel("A", "/user/*/x", retention=Retention(seconds=1, confirmed_seconds=2)), "confirmed"),
    ],
)
def test_a_contradiction_is_refused_with_a_sentence(channel: Channel, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        ChannelRegistry([channel])


def test_a_code_is_used_once() -> None:
    with pytest.raises(ConfigurationError, match="twice"):
        ChannelRegistry([Channel("A", "/topic/x"), Channel("A", "/topic/y")])
