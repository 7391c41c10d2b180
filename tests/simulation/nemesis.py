"""What hurts the nodes, their store and what is between them."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from tests.simulation.world import LEASE, Place, World

Hurt = Callable[[World, Place], Coroutine[Any, Any, None]]


async def rage(world: World) -> None:
    """Hurt something, again and again, for as long as the profile says."""
    profile, rng = world.profile, world.rng
    world.server.odds = profile.store
    odds = profile.backplane
    world.odds.lost, world.odds.twice, world.odds.late, world.odds.beats = odds.lost, odds.twice, odds.late, odds.beats
    if not profile.faults:
        await asyncio.sleep(profile.seconds)
        return
    names = [name for name in profile.faults if name not in ("fail-over", "blackout") or world.fails_over]
    weights = [profile.faults[name] for name in names]
    until = world.loop.time() + profile.seconds
    while world.loop.time() < until:
        await asyncio.sleep(rng.uniform(*profile.pause))
        place = rng.choice(world.places[: profile.victims])
        (name,) = rng.choices(names, weights)
        world.tasks.create_task(_hurt(world, place, name))


async def _hurt(world: World, place: Place, name: str) -> None:
    if name in _TO_NODES:
        if place.busy or not place.up:
            return
        place.busy = True
        try:
            await _TO_NODES[name](world, place)
        finally:
            place.busy = False
    else:
        await _TO_ALL[name](world, place)


async def _crash(world: World, place: Place) -> None:
    world.fault("crash")
    await place.crash()
    await asyncio.sleep(world.rng.uniform(*world.profile.down) * LEASE * world.rng.choice([0.3, 1.0]))
    await place.start()


async def _blackout(world: World, place: Place) -> None:
    """The power fails: all nodes die, and the store with the newest that it had."""
    world.fault("blackout")
    up = [each for each in world.places if each.up]
    for each in up:
        await each.crash()
    world.fail_over()
    for each in up:
        await each.start()


async def _stop(world: World, place: Place) -> None:
    world.fault("stop")
    await place.stop()
    await asyncio.sleep(world.rng.uniform(*world.profile.down) * LEASE * 0.3)
    await place.start()


async def _pause(world: World, place: Place) -> None:
    long = world.rng.random() < 0.5
    await world.pause(place, world.rng.uniform(1.5, 2.2) * LEASE if long else world.rng.uniform(0.1, 1.0))


async def _cut(world: World, place: Place) -> None:
    backplane = place.backplane
    if backplane is not None:
        world.fault("cut")
        backplane.cut()
        await asyncio.sleep(world.rng.uniform(0.02, 1.0))
        backplane.heal()


async def _deafen(world: World, place: Place) -> None:
    if place.backplane is not None:
        world.fault("deafen")
        place.backplane.deafen()


async def _isolate(world: World, place: Place) -> None:
    if place.store is not None:
        world.fault("isolate")
        store = place.store
        store.cut_off = True
        await asyncio.sleep(world.rng.uniform(0.1, 1.5 * LEASE))
        store.cut_off = False


async def _away(world: World, place: Place) -> None:
    world.fault("away")
    world.server.go_away()
    long = world.rng.random() < 0.4
    await asyncio.sleep(world.rng.uniform(1.2, 1.8) * LEASE if long else world.rng.uniform(0.05, 2.0))
    world.server.come_back()


async def _freeze(world: World, place: Place) -> None:
    world.fault("freeze")
    world.server.freeze()
    await asyncio.sleep(world.rng.uniform(0.05, 3.0))
    world.server.come_back()


async def _fail_over(world: World, place: Place) -> None:
    backplanes = [each.backplane for each in world.places if each.backplane is not None]
    if world.profile.forgets:  # one server: who was connected to it connects anew
        for backplane in backplanes:
            backplane.cut()
    world.fail_over()
    if world.profile.forgets:
        await asyncio.sleep(world.rng.uniform(0.02, 0.5))
        for backplane in backplanes:
            backplane.heal()


_TO_NODES: Final[dict[str, Hurt]] = {"crash": _crash, "stop": _stop, "pause": _pause}
_TO_ALL: Final[dict[str, Hurt]] = {
    "cut": _cut,
    "deafen": _deafen,
    "isolate": _isolate,
    "away": _away,
    "freeze": _freeze,
    "fail-over": _fail_over,
    "blackout": _blackout,
}
