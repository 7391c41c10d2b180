"""Who counts as alive."""

from postroom.cluster.membership import Membership
from postroom.cluster.routes import Routes
from postroom.identity import Lease, NodeId, UserName

ME, TWO, THREE = (Lease(NodeId(f"n{n}"), n) for n in (1, 2, 3))


def joined() -> Membership:
    members = Membership()
    members.joined(ME)
    members.renewed([ME, TWO, THREE])
    return members


def test_the_peers_are_the_others() -> None:
    assert set(joined().peers) == {TWO, THREE}


def test_a_lease_that_is_missing_has_ended() -> None:
    members = joined()
    assert members.renewed([ME, TWO]) == [THREE]
    assert not members.alive(THREE)
    assert members.alive(TWO)


def test_a_node_that_came_since_the_last_renewal_counts() -> None:
    members = joined()
    assert members.alive(Lease(NodeId("n4"), 4))
    members.renewed([ME, TWO, THREE, Lease(NodeId("n5"), 5)])
    assert not members.alive(Lease(NodeId("n4"), 4))


def test_an_older_incarnation_of_a_live_node_is_dead() -> None:
    members = joined()
    again = Lease(TWO.node, 9)
    assert members.renewed([ME, THREE, again]) == [TWO]
    assert members.alive(again)
    assert not members.alive(TWO)


def test_a_node_was_cut_off_if_others_lived_on() -> None:
    again = Lease(ME.node, 9)
    assert joined().was_cut_off([again, TWO])
    assert not joined().was_cut_off([again])
    assert not joined().was_cut_off([again, Lease(TWO.node, 8)])  # the directory itself was away, for all


def test_a_route_lapses_and_nowhere_is_not_remembered() -> None:
    routes, ann, ben = Routes(1.0), UserName("ann"), UserName("ben")
    routes.put(ann, ["n1"], now=10.0)
    routes.put(ben, [], now=10.0)
    assert routes.get(ann, 10.9) == ["n1"]
    assert routes.get(ben, 10.1) is None
    assert routes.get(ann, 11.0) is None
    routes.put(ann, ["n1"], now=12.0)
    routes.drop(ann)
    assert routes.get(ann, 12.0) is None
