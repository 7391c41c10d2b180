"""What is wrong with a run, beyond what the history of its clients says."""

from collections import defaultdict
from collections.abc import Iterator

from tests.simulation.stores import Entry
from tests.simulation.world import World, queue_of
from tests.support.history import Enough, Got, Owner, Subscribed, check


def judge(world: World) -> list[str]:
    """Every promise that was broken, in sentences."""
    storm = bool(world.profile.faults)
    enough = Enough(
        receipted=world.profile.messages * world.profile.senders // 2,
        redelivered=0,
        reconnected=1,
        faults=3 if storm else 0,
        faults_in_flight=0,
        unknown_share=0.0,
    )
    return [
        *world.wrong,
        *check(world.history, list(world.owners), enough),
        *_stored_once(world),
        *_skips_are_told(world),
        *_handed_out_once(world),
    ]


def _stored_once(world: World) -> Iterator[str]:
    for log, entries in world.server.ledger.entries.items():
        keys: set[str] = set()
        for entry in entries:
            if entry.key in keys:
                yield f"stored twice: {entry.key} in the log of {log.user}"
            keys.add(entry.key)


def _skips_are_told(world: World) -> Iterator[str]:
    """Between two messages of a subscription lie as many as the second one says; numbers have no holes."""
    if world.server.ledger.failed_over:
        return
    numbers = {user: _numbers(world, user) for user in dict.fromkeys(owner[0] for owner in world.owners)}
    last: dict[str, int] = {}
    owner: dict[str, Owner] = {}
    for event in world.history.events:
        match event:
            case Subscribed(subscription, whose):
                owner[subscription] = whose
            case Got(subscription=subscription):
                number = numbers[owner[subscription][0]][event.key]
                if subscription in last and number - 1 - last[subscription] != event.skipped:
                    yield (
                        f"skipped: {event.key} is number {number} in its log and came after {last[subscription]} in"
                        f" {subscription}, which was told {event.skipped}"
                    )
                last[subscription] = number
            case _:
                pass


def _numbers(world: World, user: str) -> dict[str, int]:
    entries: list[Entry] = world.server.ledger.entries.get(world.log_of(user), [])
    return {entry.key: entry.number for entry in entries}


def _handed_out_once(world: World) -> Iterator[str]:
    """Without faults, and where nobody leaves before all is confirmed, pulls and subscriptions share nothing."""
    if not world.profile.polite:
        return
    owner: dict[str, Owner] = {}
    seen: dict[tuple[Owner, str], str] = {}
    tabs: dict[str, str] = {}
    for event in world.history.events:
        match event:
            case Subscribed(subscription, whose):
                owner[subscription] = whose
                tabs[subscription] = "pull" if subscription.startswith("pull/") else "tab"
            case Got(subscription=subscription, key=key):
                first = seen.setdefault((owner[subscription], key), subscription)
                if first != subscription and "pull" in (tabs[first], tabs[subscription]):
                    yield f"handed out twice: {key} in {first} and in {subscription}"
            case _:
                pass


def shares(world: World) -> dict[str, int]:
    """How often what happened: a reader sees whether the run bit."""
    counts = defaultdict(int, world.counts)
    for place in world.places:
        counts["incarnations"] += int(place.up)
    return dict(counts)


__all__ = ["judge", "queue_of", "shares"]
