"""Kinds of runs: what may go wrong in them, and what of the nodes is taken away so that one rule alone is seen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tests.simulation import backplanes, stores


@dataclass(frozen=True)
class Profile:
    """How a run goes. `faults` are the weights of what the nemesis does, `without` the rules that are off (by the
    name of their mutation), so that they hide nothing."""

    name: str
    faults: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 8.0
    pause: tuple[float, float] = (0.1, 1.2)
    senders: int = 3
    messages: int = 12
    gap: tuple[float, float] = (0.0, 0.5)
    visit: tuple[float, float] = (0.3, 6.0)
    polite: bool = False
    pulls: bool = False
    overflow: bool = False
    fails_over: bool = False
    forgets: bool = False
    lossy: bool = False
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
    pulls=True,
    overflow=True,
    fails_over=True,
    store=stores.Odds(slow=0.02, no_request=0.02, no_reply=0.02, half=0.02, late=0.01),
    backplane=backplanes.Odds(lost=0.1, twice=0.1, late=0.1),
)
"""Everything at once."""

RACE: Final = Profile(
    "race",
    seconds=3.0,
    senders=6,
    messages=6,
    gap=(0.0, 0.4),
    visit=(0.05, 0.4),
    without=("no comparison of logs",),
)
"""No faults, many who come and go, and no comparison of logs that would make good what came in the wrong order."""

PULLS: Final = Profile("pulls", seconds=6.0, visit=(0.1, 1.0), polite=True, pulls=True)
"""Pulls and subscriptions of the same mailbox, without faults: nothing is handed out twice."""

CUTS: Final = Profile("cuts", faults={"cut": 1}, without=("no holes in counters", "no counters in heart-beats"))
"""Connections to the backplane are lost, and nothing else; the counters tell nothing."""

PROFILES: Final = {profile.name: profile for profile in (STORM, RACE, PULLS, CUTS)}
