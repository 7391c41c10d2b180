"""Applications' handlers: how they are called, what they may send, and how their answers reach the client."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import structlog

from postroom import stomp
from postroom.destination import AppPath, Destination
from postroom.errors import NotAllowed, Refused, UnknownDestination
from postroom.gateway.sending import RESERVED, own_headers
from postroom.handlers import Request, encode_payload
from postroom.message import Message
from postroom.session import Entry, Session, Ticket
from postroom.subscription import Subscription
from postroom.transport.base import Framing

if TYPE_CHECKING:
    from postroom.gateway.desk import Desk

_log = structlog.get_logger("postroom.gateway")

_SERVERS: Final = RESERVED | {"content-length", "destination", "receipt-id"}
FAILED: Final = "the application failed to handle this message"


class Replies:
    """What the handlers of one session's requests may send."""

    __slots__ = ("_desk", "_session")

    def __init__(self, desk: "Desk", session: Session) -> None:
        self._desk = desk
        self._session = session

    async def send(self, destination: str, headers: Mapping[str, str], body: bytes) -> None:
        """To any destination but the application's own. Raises Refused, or StoreUnavailable."""
        found = self._desk.destinations.to_send(destination)
        if isinstance(found, AppPath):
            raise UnknownDestination(f"{destination} is served by handlers: call them")
        await self._send(found, headers, body)

    async def send_to_user(self, name: str, headers: Mapping[str, str], body: bytes) -> None:
        """To `name` of the user who asks. Raises Refused, or StoreUnavailable."""
        await self._send(self._desk.destinations.of_user(self._session.principal.name, name), headers, body)

    def reply(self, name: str, headers: Mapping[str, str], body: bytes) -> int:
        """To the asking session's subscriptions to its user's `name`."""
        target = self._desk.destinations.of_user(self._session.principal.name, name)
        message = self._message(target, headers, body, self._desk.message_id())
        return put(self._session, message)

    async def _send(self, destination: Destination, headers: Mapping[str, str], body: bytes) -> None:
        route = self._desk.router.route_of(destination)
        message_id = self._desk.message_id() if route.log is None else ""
        await self._desk.router.send(route, self._message(destination, headers, body, message_id))

    @staticmethod
    def _message(destination: Destination, headers: Mapping[str, str], body: bytes, message_id: str) -> Message:
        told = {name: value for name, value in headers.items() if name not in _SERVERS}
        return Message(destination, None, told, body, message_id)


def subscription_of(
    session: Session, event: stomp.Subscribe, target: Destination, version: stomp.Version, framing: Framing
) -> Subscription:
    """The subscription to `target` that `event` asks for."""
    return Subscription(
        event.id,
        event.destination,
        target,
        ack=event.ack,
        version=version,
        framing=framing,
        outbox=session.outbox,
        anonymous=event.anonymous,
    )


def put(session: Session, message: Message) -> int:
    """Put `message` into the session's subscriptions to just its destination, past every log; how many those are."""
    to = [entry.subscription for entry in session.entries.values() if entry.subscription.target == message.destination]
    for subscription in to:
        subscription.put(subscription.encode(message))
    return len(to)


def invoke(desk: "Desk", session: Session, path: AppPath, event: stomp.Send) -> Any:
    """Call the handler of a SEND. Awaitable if it is a coroutine; whatever else it returns counts for nothing.

    Raises Refused.
    """
    return _guarded(desk.handlers.invoke, _request(desk, session, path, own_headers(event), event.body))


def subscribe(
    desk: "Desk", session: Session, event: stomp.Subscribe, path: AppPath, version: stomp.Version, framing: Framing
) -> tuple[Entry, Any]:
    """A SUBSCRIBE to a handler: the entry of the subscription, which gets one answer, and what the handler returned.

    Raises Refused.
    """
    if not desk.channels.of(path).subscribe.allows(session.principal):
        raise NotAllowed(f"you may not subscribe to {event.destination}")
    subscription = subscription_of(session, event, path, version, framing)
    answer = _guarded(desk.handlers.subscribe, _request(desk, session, path, event.headers, b""))
    return Entry(subscription), answer


def answer(desk: "Desk", entry: Entry, payload: Any) -> None:
    """Send what the handler returned to the subscription that asked for it; None is no answer. Raises Refused."""
    if payload is None:
        return
    subscription = entry.subscription
    try:
        headers, body = encode_payload(payload)
    except Exception:
        _log.exception("a handler returned what is no JSON", destination=subscription.target.name)
        raise Refused(FAILED) from None
    subscription.put(subscription.encode(Message(subscription.target, None, headers, body, desk.message_id())))


def _request(desk: "Desk", session: Session, path: AppPath, headers: Mapping[str, str], body: bytes) -> Request:
    return Request(path.name, {}, session.principal, session.id, headers, body, Replies(desk, session))


def _guarded(call: Callable[[Request], Any], request: Request) -> Any:
    try:
        return call(request)
    except Refused:
        raise
    except Exception:
        _log.exception("a handler failed", session=request.session[:8], path=request.path)
        raise Refused(FAILED) from None


async def finish(
    running: Awaitable[Any],
    ticket: Ticket,
    done: Callable[[Any], None],
    refuse: Callable[[Refused], None],
    *,
    session: str,
) -> None:
    """Wait for a handler. Then `done` gets what it returned and the receipt leaves, or the sender is told why not."""
    try:
        done(await running)
    except Refused as error:
        ticket.refuse()
        refuse(error)
    except Exception:
        _log.exception("a handler failed", session=session)
        ticket.refuse()
        refuse(Refused(FAILED))
    else:
        ticket.settle()


def waits(returned: Any) -> bool:
    """Whether a handler's return value must be awaited."""
    return inspect.isawaitable(returned)
