"""Subscriptions of a session: entering and leaving them, acknowledgements, and the error queue."""

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec

from postroom import stomp
from postroom.channel import ERRORS_NAME, Channel
from postroom.delivery.window import Proven, Window
from postroom.destination import Destination, Pattern, UserQueue
from postroom.errors import NotAllowed, PostroomError, UnknownDestination
from postroom.gateway.answering import put, subscription_of
from postroom.identity import Principal
from postroom.message import Message, StoredMessage
from postroom.position import Epoch, LogKey, Position
from postroom.relay import TOPICS, topic_subject
from postroom.session import Entry, Session, Ticket
from postroom.store.base import Append, Appended
from postroom.subscription import Follower, Subscription
from postroom.transport.base import Framing

if TYPE_CHECKING:
    from postroom.gateway.desk import Desk

_MAX_REFUSALS: Final = 5
_REDELIVERY_SECONDS: Final = 1.0
_DIGITS: Final = 18
"""What a number that a client claims to know may have: more is no epoch and no offset of ours."""
DEAD_LETTERS: Final = "/queue/dead-letters"
"""Where a user finds what its client refused (NACK) too often."""


def target_of(desk: "Desk", session: Session, event: stomp.Subscribe) -> Destination:
    """What the subscription is to. Raises Refused."""
    if "selector" in event.headers:
        raise NotAllowed("selectors are not supported: subscribe to a narrower destination")
    return desk.destinations.to_subscribe(event.destination, session.principal.name)


def enter(
    desk: "Desk",
    session: Session,
    event: stomp.Subscribe,
    target: Destination,
    version: stomp.Version,
    framing: Framing,
) -> Entry:
    """Make the subscription that `event` asks for, visible in the hub at once.

    A follower's log is not yet followed. Raises Refused.
    """
    principal = session.principal
    pattern = _pattern(event.destination, target)
    channel = _permitted(desk, principal, target, pattern)
    subscription = subscription_of(session, event, target, version, framing)
    route = desk.router.route_of(target)
    if pattern is not None:
        desk.hub.add_pattern(pattern, subscription)
        entry = Entry(subscription, pattern=pattern)
    elif route.log is None:
        desk.hub.add(route.key, subscription)
        entry = Entry(subscription, key=route.key)
    else:
        entry = Entry(subscription, follower=_follower(desk, session, event, subscription, channel, route.log))
    if desk.interest is not None:
        if isinstance(target, UserQueue):
            entry.visible = desk.interest.user(target.user)
        else:
            entry.followed = topic_subject(target.name) if pattern is None else TOPICS
            entry.visible = desk.interest.follow(entry.followed)
    return entry


def _pattern(text: str, target: Destination) -> Pattern | None:
    pattern = Pattern(target.name)
    if pattern.literal:
        return None
    if isinstance(target, UserQueue):
        raise UnknownDestination(f"{text}: a pattern cannot be used below a user destination")
    return pattern


def _permitted(desk: "Desk", principal: Principal, target: Destination, pattern: Pattern | None) -> Channel:
    if pattern is not None:
        for channel in desk.channels.channels:
            if not channel.subscribe.allows(principal) and pattern.overlaps(Pattern(channel.destination)):
                raise NotAllowed(f"{pattern.text} covers destinations that you may not subscribe to")
    channel = desk.channels.of(target)
    if not channel.subscribe.allows(principal):
        raise NotAllowed(f"you may not subscribe to {target.name}")
    return channel


def _follower(
    desk: "Desk",
    session: Session,
    event: stomp.Subscribe,
    subscription: Subscription,
    channel: Channel,
    log: LogKey,
) -> Follower:
    limits = desk.limits
    return Follower(
        subscription,
        log,
        session.owner if log.user is not None else None,
        window=Window(max_messages=limits.in_flight_messages, max_bytes=limits.in_flight_bytes),
        outbox=session.outbox,
        after=_position(event) if log.user is None else None,
        proof_handled=channel.proof == "handled",
    )


def _position(event: stomp.Subscribe) -> Position | None:
    """The client's own position in a topic's history: the headers `after-offset` and `epoch`."""
    text = event.headers.get("after-offset")
    if text is None:
        return None
    epoch = event.headers.get("epoch", "0")
    if not all(each.isascii() and each.isdigit() and len(each) <= _DIGITS for each in (text, epoch)):
        raise NotAllowed("after-offset and epoch are the numbers that a MESSAGE of this topic carried")
    return Position(Epoch(int(epoch)), int(text))


def in_force(entry: Entry, ticket: Ticket) -> None:
    """The receipt of the SUBSCRIBE may leave once other nodes' messages come too."""
    if entry.visible is None or entry.visible.done():
        ticket.settle()
    else:
        entry.visible.add_done_callback(lambda _: ticket.settle())


def ready(entry: Entry, follower: Follower, ticket: Ticket) -> None:
    """The place to start from is known: the receipt of the SUBSCRIBE says it."""
    if follower.head is not None:
        ticket.headers = {"epoch": str(follower.head.last.epoch), "offset": str(follower.head.last.offset)}
        if follower.recovered is not None:
            ticket.headers["recovered"] = "true" if follower.recovered else "false"
    in_force(entry, ticket)


def leave(desk: "Desk", entry: Entry) -> None:
    """Undo `enter`."""
    if entry.follower is not None:
        desk.mailbox.unfollow(entry.follower)
    elif entry.pattern is not None:
        desk.hub.remove_pattern(entry.pattern, entry.subscription)
    elif entry.key is not None:
        desk.hub.remove(entry.key, entry.subscription)
    if desk.interest is not None and entry.followed is not None:
        desk.interest.unfollow(entry.followed)


# ── acknowledgements ──────────────────────────────────────────────────────────────────────────────────────


def acknowledge(desk: "Desk", session: Session, event: stomp.Ack | stomp.Nack) -> None:
    """ACK or NACK: cumulative with `client`, of one message with `client-individual`.

    What names no message in flight is ignored: it was confirmed before, or belonged to a transient destination.
    """
    follower, offset = _named(session, event)
    if follower is None or follower.owner is None or follower.subscription.ack == "auto":
        return
    one = follower.subscription.ack == "client-individual"
    if isinstance(event, stomp.Nack):
        for stored in follower.window.unproven(offset):
            if not one or stored.position.offset == offset:
                _refused(desk, session, follower, stored)
        return
    if not follower.window.holds(offset):
        return
    _confirm(desk, follower, follower.window.prove_one(offset) if one else follower.window.prove(offset))


def _named(session: Session, event: stomp.Ack | stomp.Nack) -> tuple[Follower | None, int]:
    if event.id is not None:
        message_id, _, subscription = event.id.partition("@")
    else:
        message_id, subscription = event.message_id or "", event.subscription or ""
    offset = message_id.rpartition("-")[2]
    if not (offset.isascii() and offset.isdigit()):
        return None, 0
    if subscription or event.id is not None:
        return session.follower(subscription), int(offset)
    # STOMP 1.0 names the message alone.
    for entry in session.entries.values():
        if entry.follower is not None and entry.follower.window.holds(int(offset)):
            return entry.follower, int(offset)
    return None, 0


def _confirm(desk: "Desk", follower: Follower, proven: Proven | None) -> None:
    if proven is not None:
        desk.mailbox.confirm(follower, proven)


def _refused(desk: "Desk", session: Session, follower: Follower, stored: StoredMessage) -> None:
    """NACK: send it again after a while; the fifth time it goes to the user's dead letters instead."""
    offset = stored.position.offset
    if not follower.window.holds(offset):
        return
    if follower.refusals is None:
        follower.refusals = {}
    times = follower.refusals[offset] = follower.refusals.get(offset, 0) + 1
    if times < _MAX_REFUSALS:
        loop = asyncio.get_running_loop()
        loop.call_later(_REDELIVERY_SECONDS * times, desk.mailbox.resend, follower, stored)
        return
    del follower.refusals[offset]
    user = session.principal.name
    route = desk.router.route_of(UserQueue(user, DEAD_LETTERS))
    headers = {**stored.message.headers, "dead-letter-of": follower.log.name}
    message = Message(route.destination, stored.message.sender, headers, stored.message.body)

    def kept(outcome: Appended | PostroomError) -> None:
        if isinstance(outcome, Appended):
            _confirm(desk, follower, follower.window.prove_one(offset))
        else:
            report(desk, session, "dead-letter", str(outcome), None)

    desk.mailbox.append(Append(LogKey(user, DEAD_LETTERS), message, route.retention, desk.mailbox.highest), kept)


# ── the error queue ───────────────────────────────────────────────────────────────────────────────────────


def report(desk: "Desk", session: Session, code: str, reason: str, event: object) -> None:
    """Tell the session, on its own `/user/queue/errors`, what was refused and why."""
    headers = {"content-type": "application/json", "code": code, "message": reason}
    receipt, destination = getattr(event, "receipt", None), getattr(event, "destination", None)
    if receipt is not None:
        headers["receipt-id"] = receipt
    body = {"code": code, "message": reason, "destination": destination, "receipt": receipt}
    target = UserQueue(session.principal.name, ERRORS_NAME)
    message = Message(target, None, headers, msgspec.json.encode(body), desk.message_id())
    put(session, message)
