"""Who is alive: the leases as this node last saw them."""

from collections.abc import Collection, Iterable, Sequence

from postroom.identity import Lease


class Membership:
    """The live incarnations, as the last renewal told them.

    Incarnations are counted up by the directory for every start of any node: one that is newer than all that the
    last renewal named has joined since, and counts as alive.
    """

    __slots__ = ("_alive", "_newest", "own")

    def __init__(self) -> None:
        self.own: Lease | None = None
        self._alive: frozenset[Lease] = frozenset()
        self._newest = 0

    @property
    def peers(self) -> Collection[Lease]:
        """The live nodes but for this one."""
        return self._alive - {self.own}

    def joined(self, own: Lease) -> None:
        """This node has a new incarnation, the newest of all: also where the directory was lost and counts anew."""
        self.own = own
        self._newest = own.incarnation

    def renewed(self, alive: Iterable[Lease]) -> Sequence[Lease]:
        """A renewal named the live leases: those of the last time that have ended."""
        now = frozenset(alive)
        ended = self._alive - now
        self._alive = now
        self._newest = max([self._newest, *(lease.incarnation for lease in now)])
        return sorted(ended - {self.own}, key=lambda lease: lease.incarnation)

    def was_cut_off(self, alive: Iterable[Lease]) -> bool:
        """Whether nodes that this one knew lived on, while its own lease ended: then others held it for dead.

        Where nobody's lease survived, the directory itself was away, for all alike.
        """
        return not self._alive.isdisjoint({lease for lease in alive if lease != self.own})

    def alive(self, member: Lease) -> bool:
        """Whether what the directory says of this incarnation counts."""
        return member in self._alive or member.incarnation > self._newest
