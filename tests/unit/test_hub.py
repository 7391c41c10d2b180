"""Who subscribes to what: each subscriber once, encoded once a group."""

from collections.abc import Callable, Hashable

from postroom.destination import Pattern, Topic
from postroom.hub import Hub, user_key
from postroom.identity import UserName
from postroom.message import Message

NEWS = Message(Topic("/topic/news"), None, {}, b"hello", "m1")


class Listener:
    """A subscriber that remembers its frames and counts how often it had to encode."""

    encoded = 0

    def __init__(self, encoding: str = "sub-0") -> None:
        self.encoding: Hashable = encoding
        self.frames: list[bytes] = []
        self.put: Callable[[bytes], None] = self.frames.append

    def encode(self, message: Message) -> bytes:
        Listener.encoded += 1
        return message.body


def test_a_message_reaches_the_subscribers_of_its_destination_only() -> None:
    hub: Hub[str] = Hub()
    here, there = Listener(), Listener()
    hub.add("/topic/news", here)
    hub.add("/topic/sports", there)
    assert hub.publish("/topic/news", NEWS) == 1
    assert (here.frames, there.frames) == ([b"hello"], [])


def test_equal_subscriptions_share_one_encoding() -> None:
    hub: Hub[str] = Hub()
    listeners = [Listener() for _ in range(10)] + [Listener("other")]
    for listener in listeners:
        hub.add("/topic/news", listener)
    Listener.encoded = 0
    assert hub.publish("/topic/news", NEWS) == 11
    assert Listener.encoded == 2
    assert all(listener.frames == [b"hello"] for listener in listeners)


def test_patterns_hear_what_they_match_also_when_they_come_later() -> None:
    hub: Hub[str] = Hub()
    early, late = Listener(), Listener()
    hub.add_pattern(Pattern("/topic/*"), early)
    hub.publish("/topic/news", NEWS)
    hub.add_pattern(Pattern("/topic/**"), late)
    hub.publish("/topic/news", NEWS)
    assert (len(early.frames), len(late.frames)) == (2, 1)
    hub.remove_pattern(Pattern("/topic/*"), early)
    hub.publish("/topic/news", NEWS)
    assert (len(early.frames), len(late.frames)) == (2, 2)


def test_nothing_is_left_of_a_subscriber_that_left() -> None:
    hub: Hub[str] = Hub()
    listener = Listener()
    hub.add("/topic/news", listener)
    hub.add("/topic/news", listener)
    assert hub.subscriptions == 1
    hub.remove("/topic/news", listener)
    hub.remove("/topic/news", listener)
    assert hub.subscriptions == 0
    assert hub.publish("/topic/news", NEWS) == 0


def test_a_user_is_here_until_the_last_session_leaves() -> None:
    hub: Hub[str] = Hub()
    bob = UserName("bob")
    assert hub.enter(bob, "tab 1")
    assert not hub.enter(bob, "tab 2")
    assert not hub.leave(bob, "tab 1")
    assert list(hub.users) == ["bob"]
    assert hub.leave(bob, "tab 2")
    assert list(hub.users) == []
    assert not hub.leave(bob, "tab 2")


def test_no_user_and_no_topic_share_a_key() -> None:
    assert user_key(UserName("/topic"), "/news") != "/topic/news"
    assert user_key(UserName("a"), "/b") != user_key(UserName("a/b"), "/b")
