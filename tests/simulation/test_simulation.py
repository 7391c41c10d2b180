"""Three real nodes on a virtual clock: some hundred interleavings here, thousands with `make simulate`."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from tests.simulation.mutations import MUTATIONS, Mutation
from tests.simulation.profiles import PROFILES, STORM, Profile
from tests.simulation.run import simulate
from tests.support.deadline import SCALE

pytestmark = pytest.mark.timeout(300 * SCALE)

_SEEDS = int(os.environ.get("POSTROOM_SIMULATION_SEEDS", "25"))
_TRIES = 100
_ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
def test_every_promise_is_kept(profile: Profile) -> None:
    totals: Counter[str] = Counter()
    seeds = _SEEDS * (4 if profile is STORM else 1)
    for seed in range(seeds):
        outcome = simulate(seed, profile)
        assert outcome.wrong[:10] == [], f"{len(outcome.wrong)} in all; replay with\n{outcome.replay}"
        totals += outcome.counts
    print(f"{seeds} runs:", ", ".join(f"{name} {count}" for name, count in sorted(totals.items())))
    assert totals["receipts"] > 20 * seeds
    assert totals["redeliveries"]
    for fault in profile.faults:
        assert totals[fault], f"no {fault} in {seeds} runs"


@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=lambda mutation: mutation.name)
def test_without_this_rule_a_promise_is_broken(mutation: Mutation) -> None:
    profile = PROFILES[mutation.profile]
    for seed in range(_TRIES):
        outcome = simulate(seed, profile, [mutation.name])
        if outcome.kinds & set(mutation.shows):
            assert simulate(seed, profile).wrong == []
            return
    pytest.fail(f"{_TRIES} runs have not noticed it")


@pytest.mark.parametrize("seed", [116, 332, 428])
def test_what_a_node_said_before_it_joined_anew_and_that_was_lost_is_missed(seed: int) -> None:
    assert simulate(seed, PROFILES["lapses"]).wrong == []


def test_a_seed_is_a_run_bit_for_bit_in_every_process() -> None:
    ours = [simulate(seed).digest for seed in (3, 5)]
    assert [simulate(seed).digest for seed in (3, 5)] == ours
    assert ours[0] != ours[1]
    program = "from tests.simulation.run import simulate; print(simulate(3).digest, simulate(5).digest)"
    for hashes in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hashes}
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=_ROOT, env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == ours
