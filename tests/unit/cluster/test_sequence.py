"""Whatever is lost on a subject, the next publish or the next heart-beat tells."""

from hypothesis import given
from hypothesis import strategies as st

from postroom.cluster.sequence import Incoming, Outgoing

HOLE, FINE = True, False


def test_the_next_number_is_fine_and_a_jump_is_a_hole() -> None:
    incoming = Incoming()
    assert incoming.heard("all", "n1", 1, 1) is FINE
    assert incoming.heard("all", "n1", 1, 2) is FINE
    assert incoming.heard("all", "n1", 1, 4) is HOLE
    assert incoming.heard("all", "n1", 1, 5) is FINE


def test_what_is_first_heard_in_the_middle_may_have_had_a_beginning() -> None:
    assert Incoming().heard("all", "n1", 1, 7) is HOLE


def test_what_comes_again_or_late_is_no_hole() -> None:
    incoming = Incoming()
    for counter in (1, 2, 3):
        incoming.heard("all", "n1", 1, counter)
    assert incoming.heard("all", "n1", 1, 2) is FINE
    assert incoming.heard("all", "n1", 1, 4) is FINE


def test_peers_incarnations_and_subjects_are_counted_apart() -> None:
    incoming = Incoming()
    assert incoming.heard("all", "n1", 1, 1) is FINE
    assert incoming.heard("all", "n1", 2, 1) is FINE
    assert incoming.heard("all", "n2", 3, 1) is FINE
    assert incoming.heard("node.me", "n1", 1, 1) is FINE


def test_a_heartbeat_tells_of_the_last_publish_that_never_came() -> None:
    incoming = Incoming()
    incoming.heard("node.me", "n1", 1, 1)
    assert incoming.named("n1", 1, {"node.me": 2, "node.other": 9}, ["node.me", "all"]) == ["node.me"]
    assert incoming.named("n1", 1, {"node.me": 2}, ["node.me"]) == []


def test_a_subject_that_was_idle_begins_again() -> None:
    outgoing = Outgoing()
    assert [outgoing.next("a"), outgoing.next("a")] == [1, 2]
    assert outgoing.beat() == {"a": 2}
    assert outgoing.beat() == {"a": 2}
    assert outgoing.beat() == {}
    first = outgoing.next("a")
    assert first > 2
    incoming = Incoming()
    incoming.heard("a", "n1", 1, 2)
    assert incoming.heard("a", "n1", 1, first) is FINE
    assert Incoming().heard("a", "n1", 1, outgoing.next("a")) is HOLE


@given(st.lists(st.sampled_from(["publish", "lose", "beat", "lose the beat", "beat"]), max_size=60))
def test_every_loss_is_noticed_by_the_second_heartbeat_after_it(story: list[str]) -> None:
    outgoing, incoming = Outgoing(), Incoming()
    owed = False

    def publish(*, lost: bool) -> None:
        nonlocal owed
        counter = outgoing.next("node.me")
        if lost:
            owed = True
        elif incoming.heard("node.me", "n1", 1, counter):
            owed = False

    def beat(*, lost: bool) -> None:
        nonlocal owed
        counters = outgoing.beat()
        if not lost and incoming.named("n1", 1, counters, ["node.me"]):
            owed = False

    lost_beats = 0
    for step in story:
        if "beat" in step:
            lost = step.startswith("lose") and lost_beats == 0  # two in a row is what the minute's comparison is for
            lost_beats = lost_beats + 1 if lost else 0
            beat(lost=lost)
        else:
            publish(lost=step == "lose")
    beat(lost=False)
    assert not owed
