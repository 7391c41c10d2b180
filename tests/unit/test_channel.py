"""Channels: the first match counts, a contradiction is refused, a code is looked up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.channel import Channel, ChannelRegistry, Permission, Retention
from postroom.destination import AppPath, Destination, Topic, UserQueue
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


def test_a_channel_for_everything_leaves_the_destinations_of_users_durable() -> None:
    for pattern in ("/**", "/*/**", "/{a}/{b}/{c}/{d}"):
        found = ChannelRegistry([Channel("ALL", pattern)]).of(UserQueue(BOB.name, "/queue/inbox"))
        assert (found.code, found.durable) == ("USER", True)


def test_a_built_in_channel_that_is_replaced_stands_behind_all_others() -> None:
    registry = ChannelRegistry([Channel("USER", "/user/*/**", delivery="transient"), Channel("CHAT", "/user/*/chat")])
    assert registry.of(UserQueue(BOB.name, "/chat")).code == "CHAT"
    assert registry.of(UserQueue(BOB.name, "/chat")).durable
    assert registry.of(UserQueue(BOB.name, "/other")).durable is False
    assert registry.of(Topic("/topic/x")).code == "BROADCAST"


def test_a_replaced_channel_is_given_once() -> None:
    with pytest.raises(ConfigurationError, match="twice"):
        ChannelRegistry([Channel("USER", "/user/*/**"), Channel("USER", "/user/*/**", history=0)])


@given(
    st.lists(
        st.builds(
            Channel,
            st.sampled_from(["A", "B", "USER", "BROADCAST"]),
            st.sampled_from(["/**", "/*", "/user/*/**", "/user/{x}/a", "/topic/a", "/topic/{b}/**"]),
        ),
        max_size=4,
    ),
    st.sampled_from(
        [Topic("/topic/a"), Topic("/queue/a/b"), AppPath("/user/x/a"), AppPath("/a"), UserQueue(BOB.name, "/a")]
    ),
)
def test_whatever_is_configured_each_destination_has_a_channel_of_its_kind(
    channels: list[Channel], destination: Destination
) -> None:
    try:
        registry = ChannelRegistry(channels)
    except ConfigurationError:
        return
    found = registry.of(destination)
    assert found.destination.startswith("/user/") == isinstance(destination, UserQueue)


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
        (Channel("A", "/user/*/x", retention=Retention(seconds=float("nan"))), "a number of seconds"),
        (Channel("A", "/user/*/x", retention=Retention(seconds=float("inf"))), "a number of seconds"),
        (Channel("A", "/user/*/x", retention=Retention(seconds=1e30)), "a number of seconds"),
        (Channel("A", "/user/*/x", retention=Retention(max_bytes=1 << 60)), "at most"),
        (Channel("A", "/topic/x/"), "empty segment"),
        (Channel("BROADCAST", "/topic/x"), r"must be '/\*\*'"),
        (Channel("USER", "/user/*/queue/**", delivery="durable"), r"must be '/user/\*/\*\*'"),
        (Channel("A", "/user/*/x", retention=Retention(seconds=1, confirmed_seconds=2)), "confirmed"),
    ],
)
def test_a_contradiction_is_refused_with_a_sentence(channel: Channel, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        ChannelRegistry([channel])


def test_a_code_is_used_once() -> None:
    with pytest.raises(ConfigurationError, match="twice"):
        ChannelRegistry([Channel("A", "/topic/x"), Channel("A", "/topic/y")])
