"""Kinds of runs: what may go wrong in them, and which rules are off so that another one is seen alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from tests.simulation import backplanes, stores
from tests.support.history import Owner

Range = tuple[float, float]
"""From so many seconds to so many."""

_FEW: Final[tuple[Owner, ...]] = (("ben", ""), ("ben", ""), ("cat", ""), ("cat", "phone"), ("small", "tablet"))
_MANY: Final[tuple[Owner, ...]] = tuple((f"user-{number}", "") for number in range(12))
_CROWD: Final[tuple[Owner, ...]] = tuple((f"user-{number}", "") for number in range(30))
_FOR_EVER: Final[Range] = (1e6, 1e6)


@dataclass(frozen=True)
class Profile:
    """How a run goes.

    Who receives: `tabs`, one for each entry, at one of the nodes `at`. It stays for `visit` and is away for `away`,
    and begins within `start`, or is waited for (`known`). `polite` ones leave once all that came is confirmed, by
    UNSUBSCRIBE. Who sends: so many `senders`, each so many `messages` with a `gap` between them; a connection to one
    of the nodes `via` `lives` for so long; where a sender `asks`, its SENDs come right behind a SUBSCRIBE with a
    receipt. Messages of clients and nodes take `latency` to each other.

    What goes wrong: `faults` are the weights of what the nemesis does, after a `pause` each time, for `seconds`, to
    the first `victims` of the nodes; who crashes is `down` for that long, in leases. `store` and `backplane` fare as
    their odds say meanwhile. Leases are `renew`ed so often. `without`: rules that are off.
    """

    name: str
    faults: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 8.0
    pause: Range = (0.1, 1.2)
    senders: int = 3
    messages: int = 12
    gap: Range = (0.0, 0.5)
    tabs: tuple[Owner, ...] = _FEW
    known: bool = True
    start: Range = (0.0, 0.0)
    visit: Range = (0.3, 6.0)
    away: Range = (0.005, 0.5)
    at: tuple[int, int] = (0, 3)
    latency: Range = (0.0002, 0.003)
    lives: Range = (0.5, 8.0)
    via: tuple[int, int] = (0, 3)
    asks: bool = False
    polite: bool = False
    pullers: int = 0
    overflow: bool = False
    fails_over: bool = False
    forgets: bool = False
    victims: int = 3
    down: Range = (0.01, 1.6)
    renew: float = 0.6
    store: stores.Odds = field(default_factory=stores.Odds)
    backplane: backplanes.Odds = field(default_factory=backplanes.Odds)
    without: tuple[str, ...] = ()


STORM: Final = Profile(
    "storm",
    faults={
        "crash": 3,
        "pause": 2,
        "stop": 1,
        "cut": 2,
        "deafen": 0.5,
        "away": 1,
        "freeze": 1,
        "isolate": 1,
        "fail-over": 1.5,
    },
    pullers=1,
    overflow=True,
    fails_over=True,
    store=stores.Odds(slow=0.02, no_request=0.02, no_reply=0.02, half=0.02, late=0.01),
    backplane=backplanes.Odds(lost=0.1, twice=0.1, late=0.1),
)
"""Everything at once."""

RACE: Final = Profile(
    "race",
    store=stores.Odds(slow=0.2),
    seconds=1.0,
    senders=6,
    messages=5,
    gap=(0.0, 0.15),
    tabs=_CROWD,
    known=False,
    start=(0.0, 0.4),
    visit=_FOR_EVER,
    without=("logs are compared",),
)
"""Users come while the only messages for them are sent; no faults, and no comparison of logs that would mend it."""

LEAVES: Final = Profile(
    "leaves", seconds=4.0, gap=(0.0, 0.1), messages=20, visit=(0.1, 0.6), latency=(0.0005, 0.08), polite=True, asks=True
)
"""Subscriptions end while messages are on their way; no faults."""

PULLS: Final = Profile("pulls", seconds=6.0, visit=(0.1, 1.0), polite=True, pullers=3)
"""Pulls and subscriptions of the same mailbox, without faults: nothing is handed out twice."""

ABSENT: Final = Profile("absent", tabs=_MANY[:4], known=False, visit=(0.05, 0.4), away=(0.2, 1.5))
"""Users are away for long and stay for moments, each time on another node; no faults."""

OUTAGES: Final = Profile(
    "outages",
    faults={"isolate": 2, "away": 1, "freeze": 1},
    pause=(0.1, 0.8),
    gap=(0.0, 0.2),
    messages=24,
    tabs=(("cat", "phone"), ("ben", "")),
    lives=(0.2, 1.5),
    store=stores.Odds(slow=0.1, no_request=0.1, no_reply=0.05, half=0.1, late=0.05),
)
"""The store cannot be reached, or does not answer in time."""

FAIL_OVERS: Final = Profile(
    "fail-overs", faults={"fail-over": 1, "crash": 0.3, "blackout": 0.5}, pause=(0.2, 1.5), fails_over=True
)
"""The store fails over again and again, to replicas that lack something and whose clocks are behind, now and then
together with all nodes."""

_SPARSE: Final = Profile("sparse", tabs=_MANY, known=False, visit=_FOR_EVER, messages=10, gap=(0.0, 0.8))
"""Everybody stays, and gets so little that what is missed is not soon followed by something that tells."""

LOSSES: Final = replace(_SPARSE, name="losses", backplane=backplanes.Odds(lost=0.2, twice=0.1, late=0.1))
"""What nodes tell one another is lost, or late, or comes twice."""

TELLS: Final = replace(LOSSES, name="tells", backplane=backplanes.Odds(lost=0.3, beats=False))
"""What nodes tell one another of messages is lost, and nothing that they tell all others."""

BURSTS: Final = replace(TELLS, name="bursts", tabs=_CROWD, gap=(0.0, 0.1), messages=14)
"""The same, where what is lost is followed at once by something for somebody else."""

FORGETS: Final = replace(
    _SPARSE,
    name="forgets",
    faults={"fail-over": 1},
    pause=(0.2, 1.0),
    gap=(0.0, 1.6),
    lives=_FOR_EVER,
    start=(0.0, 3.0),
    seconds=4.0,
    fails_over=True,
    forgets=True,
)
"""The store, which is the backplane too, fails over to replicas that have all messages and not all who came last."""

CUTS: Final = replace(
    _SPARSE,
    name="cuts",
    faults={"cut": 1},
    victims=1,
    via=(1, 3),
    pause=(0.05, 0.6),
    without=("a hole in the counters is noticed", "heart-beats name the counters"),
)
"""A node that nobody sends through loses its connection to the backplane, and nothing else; no counters tell of it."""

DEAF: Final = replace(_SPARSE, name="deaf", faults={"deafen": 1}, pause=(0.5, 2.0))
"""Nodes go deaf and are not told."""

CRASHES: Final = replace(
    _SPARSE,
    name="crashes",
    faults={"crash": 1},
    victims=1,
    via=(0, 1),
    down=(0.01, 0.3),
    pause=(0.3, 0.8),
    seconds=4.0,
    store=stores.Odds(slow=0.8),
)
"""A node that many send through dies again and again, often between an append and what it would have told of it."""

JOINS: Final = replace(
    CRASHES,
    name="joins",
    faults={"stop": 1},
    at=(0, 1),
    via=(1, 3),
    down=(0.005, 0.01),
    away=(0.02, 0.1),
    gap=(0.0, 2.0),
    renew=1.4,
    store=stores.Odds(),
)
"""A node ends and is there again before the others have noticed either, with clients that they are to find."""

LAPSES: Final = replace(
    _SPARSE, name="lapses", faults={"away": 1, "pause": 1}, pause=(0.5, 3.0), gap=(0.0, 3.0), seconds=12.0
)
"""Leases lapse, and nodes join anew with the clients that they have."""

PROFILES: Final = {
    profile.name: profile
    for profile in (
        *(STORM, RACE, LEAVES, PULLS, ABSENT, OUTAGES, FAIL_OVERS),
        *(LOSSES, TELLS, BURSTS, FORGETS, CUTS, DEAF, CRASHES, JOINS, LAPSES),
    )
}
