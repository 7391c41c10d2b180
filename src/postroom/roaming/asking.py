"""A request that another node answers, from the side of the node that the client came to."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from postroom.envelope import Call, Gone, Got, Item, Part
from postroom.sockjs.elsewhere import Outcome
from postroom.sockjs.exchange import Exchange

TAKEN_SECONDS: Final = 3.0
"""So long after a request the other node must have said that it is being answered."""

SLOW_SECONDS: Final = 1.0
"""While a part is being written for so long, the other node hears again and again that it has come."""


class Asking:
    """One request on its way. `send` puts items into the other node's inbox.

    `quiet_seconds`: an answer that was silent for so long, heart-beats of SockJS included, is lost.
    """

    __slots__ = (
        "_broken",
        "_exchange",
        "_left",
        "_number",
        "_parts",
        "_quiet",
        "_received",
        "_send",
        "_taken",
        "_timer",
        "_wake",
    )

    def __init__(self, number: int, exchange: Exchange, *, send: Callable[[Item], None], quiet_seconds: float) -> None:
        self._number = number
        self._exchange = exchange
        self._send = send
        self._quiet = quiet_seconds
        self._parts: deque[Part] = deque()  # bounded by the other side, which waits for acknowledgements
        self._received = 0
        self._timer: asyncio.TimerHandle | None = None
        self._taken = self._broken = self._left = False
        self._wake = asyncio.Event()

    # ── what the other node says ──────────────────────────────────────────────────────────────────────

    def taken(self) -> None:
        """It is being answered."""
        self._taken = True
        self._wake.set()

    def part(self, part: Part) -> None:
        """A part of the answer came."""
        self._taken = True
        if part.sequence == self._received + 1:
            self._received = part.sequence
            self._parts.append(part)
        else:
            self._broken = True
        self._wake.set()

    def broken(self) -> None:
        """The other node is gone."""
        self._broken = True
        self._wake.set()

    # ── the request ───────────────────────────────────────────────────────────────────────────────────

    async def run(self, body: bytes) -> Outcome:
        """Ask, and pass the answer on to the client as it comes."""
        request = self._exchange.handshake
        self._send(
            Call(
                self._number,
                self._exchange.method,
                request.path,
                request.query,
                dict(request.headers),
                request.peer_address,
                request.secure,
                body,
            )
        )
        complete = False
        try:
            outcome = await self._pass_on() if self._exchange.watch(self._leave) else await self._watched()
            complete = outcome is Outcome.ANSWERED and not self._left
            return outcome
        finally:
            if not complete:
                self._send(Gone(self._number))

    async def _watched(self) -> Outcome:
        async with asyncio.TaskGroup() as tasks:
            watcher = tasks.create_task(self._watch())
            outcome = await self._pass_on()
            watcher.cancel()
        return outcome

    async def _watch(self) -> None:
        await self._exchange.gone()
        self._leave()

    def _leave(self) -> None:
        self._left = True
        self._wake.set()

    async def _pass_on(self) -> Outcome:
        begun = False
        while not self._left:
            if not self._parts:
                if self._broken or not await self._news():
                    return Outcome.BROKEN if begun else Outcome.NOT_BEGUN
                continue
            part = self._parts.popleft()
            await self._write(part)
            begun = True
            if part.last:
                break
        return Outcome.ANSWERED

    async def _news(self) -> bool:
        """Wait for something; False: it took too long."""
        self._wake.clear()
        try:
            async with asyncio.timeout(self._quiet if self._taken else TAKEN_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True

    async def _write(self, part: Part) -> None:
        self._slow(part.sequence - 1)
        try:
            if part.status:
                headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in part.headers]
                await self._exchange.start(part.status, headers)
            await self._exchange.part(part.body, last=part.last)
        finally:
            self._stop_timer()
        if not self._left:
            self._acknowledge(part.sequence)

    def _slow(self, written: int) -> None:
        """A client that reads slowly is no lost part."""
        if self._timer is not None:
            self._acknowledge(written)
        self._timer = asyncio.get_running_loop().call_later(SLOW_SECONDS, self._slow, written)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _acknowledge(self, written: int) -> None:
        self._send(Got(self._number, written))
