"""One run, or thousands: `python -m tests.simulation.run --seeds 5000`, `... --profile storm --seed 17 --trace`."""

import argparse
import asyncio
import gc
import hashlib
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from tests.simulation import loop as virtual
from tests.simulation.judge import judge
from tests.simulation.loop import VirtualLoop
from tests.simulation.mutations import MUTATIONS
from tests.simulation.nemesis import rage
from tests.simulation.people import Puller, Receiver, Sender
from tests.simulation.profiles import PROFILES, STORM, Profile
from tests.simulation.repeatable import repeatable
from tests.simulation.world import World

_LIMIT = 300.0


@dataclass(frozen=True)
class Outcome:
    """What a run came to. `trace` is all that happened, line by line."""

    seed: int
    profile: str
    mutations: tuple[str, ...]
    wrong: list[str]
    counts: Counter[str]
    trace: list[str]

    @property
    def kinds(self) -> set[str]:
        """What is wrong, in a word or two each."""
        return {each.partition(":")[0] for each in self.wrong}

    @property
    def digest(self) -> str:
        """Equal for equal runs."""
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()

    @property
    def replay(self) -> str:
        """The command that does it again."""
        mutated = "".join(f" --mutation {name!r}" for name in self.mutations)
        return f"python -m tests.simulation.run --profile {self.profile} --seed {self.seed}{mutated} --trace"


def simulate(seed: int, profile: Profile = STORM, mutations: Sequence[str] = ()) -> Outcome:
    """Run once. The mutations are taken away from the nodes' code for the time of the run."""
    worlds: list[World] = []
    wrong: list[str] = []
    loops: list[VirtualLoop] = []
    with ExitStack() as stack:
        failures = stack.enter_context(repeatable(seed))
        for name in dict.fromkeys((*profile.without, *mutations)):
            stack.enter_context(MUTATIONS[name].applied())
        try:
            virtual.run(lambda loop: _play(loop, seed, profile, worlds, loops), limit=_LIMIT)
        except (Exception, asyncio.CancelledError) as error:
            wrong.append(f"the run ended: {_reason(error)}")
    (world,) = worlds
    wrong += [f"a node's work failed: {each}" for each in failures]
    wrong += [f"unhandled: {each}" for each in loops[0].unhandled]
    wrong += judge(world)
    return Outcome(seed, profile.name, tuple(mutations), wrong, Counter(world.counts), world.lines)


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return repr(error)


async def _play(loop: VirtualLoop, seed: int, profile: Profile, worlds: list[World], loops: list[VirtualLoop]) -> None:
    loops.append(loop)
    try:
        async with asyncio.TaskGroup() as tasks:
            world = World(loop, tasks, seed, profile)
            worlds.append(world)
            tasks.create_task(_scenario(world))
    except* _Over:
        pass


class _Over(Exception):
    """All is done: whoever is still there is to go."""


async def _scenario(world: World) -> None:
    for place in world.places:
        await place.start()
    receivers = []
    for tab, owner in enumerate(world.profile.tabs):
        world.own(owner)
        receivers.append(Receiver(world, owner, tab))
    for receiver in receivers:
        world.tasks.create_task(receiver.run())
    for receiver in receivers if world.profile.known else ():
        await receiver.known.wait()  # a device counts from its first subscription on
    senders = [Sender(world, number) for number in range(world.profile.senders)]
    world.senders_left = len(senders)
    for sender in senders:
        world.tasks.create_task(sender.run())
    for number in range(world.profile.pullers):
        world.tasks.create_task(Puller(world, "ben", number).run())
    await rage(world)
    world.heal()
    await world.settle()
    for place in world.places:
        if place.up:
            await place.crash()
    raise _Over


# ── many ──────────────────────────────────────────────────────────────────────────────────────────────────


def main() -> int:
    """Run what the command line says; 1 where something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.run", description=__doc__)
    parser.add_argument("--profile", choices=[*PROFILES, "all"], default="all")
    parser.add_argument("--seed", type=int, help="one run")
    parser.add_argument("--seeds", type=int, default=100, help="so many runs of each profile")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--mutation", action="append", default=[], choices=list(MUTATIONS))
    parser.add_argument("--trace", action="store_true", help="print all that happened")
    parser.add_argument("--mutations", action="store_true", help="what takes each rule away, in turn: a table")
    args = parser.parse_args()
    if args.mutations:
        return _table(range(args.first, args.first + args.seeds))
    profiles = list(PROFILES.values()) if args.profile == "all" else [PROFILES[args.profile]]
    seeds = [args.seed] if args.seed is not None else range(args.first, args.first + args.seeds)
    failed = 0
    for profile in profiles:
        totals: Counter[str] = Counter()
        kinds: Counter[str] = Counter()
        began, wrong = time.perf_counter(), 0
        for seed in seeds:
            outcome = simulate(seed, profile, args.mutation)
            totals += outcome.counts
            if args.trace:
                print(*outcome.trace, outcome.digest, sep="\n")
            if outcome.wrong:
                wrong += 1
                kinds.update(outcome.kinds)
                if wrong <= 5 or args.seed is not None:
                    print(f"{outcome.replay}", *outcome.wrong[: 5 if args.seed is None else 50], sep="\n    ")
                sys.stdout.flush()
        failed += wrong
        seconds = time.perf_counter() - began
        print(f"{profile.name}: {wrong} of {len(seeds)} runs fail, {seconds:.1f} s; {dict(kinds)}")
        print("    " + ", ".join(f"{name} {count}" for name, count in sorted(totals.items())))
    return 1 if failed else 0


def _table(seeds: Sequence[int]) -> int:
    print("| rule | runs | that fail | what is seen first |", "| --- | --- | --- | --- |", sep="\n")
    unnoticed = 0
    for mutation in MUTATIONS.values():
        kinds: Counter[str] = Counter()
        noticed = 0
        for seed in seeds:
            outcome = simulate(seed, PROFILES[mutation.profile], [mutation.name])
            noticed += bool(outcome.kinds & set(mutation.shows))
            kinds.update(outcome.kinds & set(mutation.shows))
        unnoticed += not noticed
        shown = ", ".join(kind for kind, _ in kinds.most_common(2))
        share = f"{100 * noticed / len(seeds):.0f} %"
        print(f"| {mutation.name} | {mutation.profile} | {share} | {shown} |", flush=True)
    return 1 if unnoticed else 0


if __name__ == "__main__":
    gc.freeze()
    sys.exit(main())
