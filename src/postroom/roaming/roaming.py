"""SockJS requests carried between the node that a client came to and the node that has its session.

A request travels as one `Call`, its answer in `Part`s, which are counted and acknowledged. What the backplane loses
shows as a part out of turn, or as an acknowledgement that does not come: then the answer breaks off on both sides, the
session ends, and the client connects anew. Nothing is lost in silence.
"""

from collections.abc import Callable, Coroutine
from typing import Any, Final

import structlog

from postroom.directory import Directory
from postroom.envelope import Call, Gone, Got, Item, Part, Taken, pack
from postroom.identity import Lease, NodeId
from postroom.peering import Peering, inbox
from postroom.roaming.answering import Answering
from postroom.roaming.asking import Asking
from postroom.roaming.claims import Claims
from postroom.sockjs.elsewhere import Outcome
from postroom.sockjs.exchange import Exchange, TooLarge
from postroom.sockjs.exchange import Gone as ClientGone
from postroom.transport.asgi import Application

_log = structlog.get_logger("postroom.roaming")

ITEMS: Final = frozenset({Call, Taken, Part, Got, Gone})
"""What nodes say to one another about such requests."""


class Roaming:
    """This node's part: the sessions that it has, the requests that it asks and those that it answers."""

    def __init__(
        self,
        peering: Peering,
        directory: Directory,
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        quiet_seconds: float,
    ) -> None:
        self._peering = peering
        self._spawn = spawn
        self._quiet_seconds = quiet_seconds
        self.claims = Claims(directory, spawn=spawn)
        self.serve: Application | None = None
        self._draining = False
        self._asked = 0
        self._asking: dict[int, tuple[NodeId, Asking]] = {}
        self._answering: dict[tuple[Lease, int], Answering] = {}

    # ── out ───────────────────────────────────────────────────────────────────────────────────────────

    async def forward(self, exchange: Exchange, home: NodeId, body: bytes) -> Outcome:
        """Have the request answered by `home`, and pass the answer on as it comes. Raises TooLarge."""
        if self._draining:
            return Outcome.NOT_BEGUN
        self._asked += 1
        number = self._asked
        if not self._peering.fits(body):
            raise TooLarge
        asking = Asking(number, exchange, send=self._sender(home), quiet_seconds=self._quiet_seconds)
        self._asking[number] = (home, asking)
        try:
            return await asking.run(body)
        finally:
            del self._asking[number]

    def _sender(self, node: NodeId) -> Callable[[Item], None]:
        subject = inbox(node)
        return lambda item: self._peering.send(subject, pack(item))

    # ── in ────────────────────────────────────────────────────────────────────────────────────────────

    def receive(self, sender: Lease, item: Item) -> None:
        """Another node said one of `ITEMS`."""
        match item:
            case Call():
                self._spawn(self._answer(sender, item))
            case Taken() | Part():
                self._hear(sender, item)
            case Got():
                if (answering := self._answering.get((sender, item.number))) is not None:
                    answering.got(item)
            case Gone():
                if (answering := self._answering.get((sender, item.number))) is not None:
                    answering.leave()

    def _hear(self, sender: Lease, item: Taken | Part) -> None:
        node, asking = self._asking.get(item.number, (None, None))
        if asking is None or node != sender.node:
            # Nobody waits for it: its client has left, and the word of that was lost.
            self._sender(sender.node)(Gone(item.number))
        elif isinstance(item, Part):
            asking.part(item)
        else:
            asking.taken()

    async def _answer(self, sender: Lease, call: Call) -> None:
        serve, send = self.serve, self._sender(sender.node)
        if serve is None:
            return
        key = (sender, call.number)
        self._answering[key] = answering = Answering(call, send=send)
        send(Taken(call.number))
        try:
            await serve(answering.scope, answering.receive, answering.send)
        except ClientGone:
            pass  # and the session has ended, if this was to be its next frame
        finally:
            del self._answering[key]

    def drain(self) -> None:
        """The node goes: clients whose sessions are elsewhere are told to connect anew, from now on all of them."""
        self._draining = True
        self._break_off()

    def _break_off(self) -> None:
        for _, asking in list(self._asking.values()):
            asking.broken()

    # ── membership ────────────────────────────────────────────────────────────────────────────────────

    def ended(self, peer: Lease) -> None:
        """A peer's lease has ended: it answers no more, and its clients are gone."""
        for node, asking in list(self._asking.values()):
            if node == peer.node:
                asking.broken()
        for (asker, _), answering in list(self._answering.items()):
            if asker == peer:
                answering.leave()

    def rejoined(self) -> None:
        """This node has a new incarnation, of whose requests and answers the others know nothing."""
        self._break_off()
        for answering in list(self._answering.values()):
            answering.leave()
        self.claims.rejoined()
