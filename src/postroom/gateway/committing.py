"""COMMIT: what a transaction holds is looked at as a whole, stored as a whole, and then the rest of it is done."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeGuard

import structlog
from msgspec import Struct

from postroom import stomp
from postroom.destination import AppPath
from postroom.errors import PostroomError, Refused, TransactionRefused
from postroom.gateway import answering, subscribing
from postroom.gateway.sending import message_of, permit
from postroom.router import Route
from postroom.session import Session, Ticket
from postroom.store.base import Appended

if TYPE_CHECKING:
    from postroom.gateway.desk import Desk

_log = structlog.get_logger("postroom.gateway")

Refuse = Callable[[PostroomError, object], None]
Part = stomp.Ack | stomp.Nack | tuple[stomp.Send, Route]


class Plan(Struct):
    """A transaction that nothing speaks against yet.

    `stored` are its SENDs to logs, `rest` what else it holds, each in order.
    """

    stored: list[tuple[stomp.Send, Route]]
    rest: list[Part]
    receipt: str | None

    @property
    def waits(self) -> bool:
        """Whether it takes longer than a call: something is stored, or a handler is called."""
        return bool(self.stored) or any(_handled(part) for part in self.rest)

    @property
    def acknowledges(self) -> bool:
        """Whether it holds an ACK or NACK: its receipt leaves once what that confirms is stored."""
        return not all(isinstance(part, tuple) for part in self.rest)


def plan(desk: "Desk", session: Session, event: stomp.Commit) -> Plan:
    """What is to be done. Raises Refused where one of the SENDs may not be sent: nothing is done then."""
    made = Plan([], [], event.receipt)
    for part in event.events:
        if not isinstance(part, stomp.Send):
            made.rest.append(part)
            continue
        route = desk.router.resolve(part.destination)
        permit(route, part, session.principal)
        if isinstance(route.destination, AppPath):
            desk.handlers.check(route.destination.name)
        (made.rest if route.log is None else made.stored).append((part, route))
    return made


def do_at_once(desk: "Desk", session: Session, planned: Plan) -> None:
    """Do what does not wait."""
    for part in planned.rest:
        _do(desk, session, part)


async def do(desk: "Desk", session: Session, planned: Plan, ticket: Ticket, refuse: Refuse) -> None:
    """Store, then do the rest in order; then the receipt leaves. Where not all is stored, the rest is not done."""
    try:
        complete = await _store(desk, session, planned, refuse) and await _rest(desk, session, planned.rest, refuse)
    except Exception:
        _log.exception("a transaction could not be committed", session=session.id[:8])
        complete = False
    if not complete:
        ticket.refuse()
    elif planned.acknowledges:
        desk.mailbox.after_confirms(ticket.settle)
    else:
        ticket.settle()


async def _store(desk: "Desk", session: Session, planned: Plan, refuse: Refuse) -> bool:
    outcomes = [asyncio.get_running_loop().create_future() for _ in planned.stored]
    # In one turn of the loop, so that they stand next to each other in the store's next batch.
    for at, (event, route) in enumerate(planned.stored):
        desk.metrics.received += 1
        message = message_of(route, event, session.principal.name)
        key = message.headers.get("idempotency-key")
        desk.router.route(route, message, outcomes[at].set_result, key=key, tied=at > 0)
    found: Sequence[Appended | PostroomError] = [await asyncio.shield(outcome) for outcome in outcomes]
    refused = [
        (error, event)
        for error, (event, _) in zip(found, planned.stored, strict=True)
        if not isinstance(error, Appended)
    ]
    if not refused:
        return True
    # One sentence is enough: that of the SEND at fault, with the receipt that does not come.
    error, event = next((each for each in refused if not isinstance(each[0], TransactionRefused)), refused[0])
    refuse(error, stomp.Send(event.destination, event.headers, b"", planned.receipt))
    return False


async def _rest(desk: "Desk", session: Session, parts: Sequence[Part], refuse: Refuse) -> bool:
    complete = True
    for part in parts:
        if not _handled(part):
            _do(desk, session, part)
            continue
        try:
            await _call(desk, session, *part)
        except Refused as error:
            refuse(error, part[0])
            complete = False
    return complete


async def _call(desk: "Desk", session: Session, event: stomp.Send, route: Route) -> None:
    assert isinstance(route.destination, AppPath)
    desk.metrics.received += 1
    returned = answering.invoke(desk, session, route.destination, event)
    try:
        if answering.waits(returned):
            await returned
    except Refused:
        raise
    except Exception:
        _log.exception("a handler failed", session=session.id[:8], destination=event.destination)
        raise Refused(answering.FAILED) from None


def _handled(part: Part) -> TypeGuard[tuple[stomp.Send, Route]]:
    return isinstance(part, tuple) and isinstance(part[1].destination, AppPath)


def _do(desk: "Desk", session: Session, part: Part) -> None:
    if not isinstance(part, tuple):
        subscribing.acknowledge(desk, session, part)
        return
    event, route = part
    desk.metrics.received += 1
    desk.router.route(route, message_of(route, event, session.principal.name, desk.message_id()), _ignore)


def _ignore(outcome: object) -> None:
    """A transient message has no outcome to wait for."""
