"""Three real nodes on a virtual clock: some hundred interleavings here, thousands with `make simulate`."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from tests.simulation.profiles import PROFILES, Profile
from tests.simulation.run import simulate
from tests.support.deadline import SCALE

pytestmark = pytest.mark.timeout(120 * SCALE)

_SEEDS = int(os.environ.get("POSTROOM_SIMULATION_SEEDS", "60"))
_ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
def test_every_promise_is_kept(profile: Profile) -> None:
    totals: Counter[str] = Counter()
    for seed in range(_SEEDS):
        outcome = simulate(seed, profile)
        assert outcome.wrong[:10] == [], f"{len(outcome.wrong)} in all; replay with\n{outcome.replay}"
        totals += outcome.counts
    print(f"{_SEEDS} runs:", ", ".join(f"{name} {count}" for name, count in sorted(totals.items())))
    assert totals["receipts"] > 20 * _SEEDS
    assert totals["redeliveries"] > _SEEDS
    for fault in profile.faults:
        assert totals[fault], f"no {fault} in {_SEEDS} runs"


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
