"""A receiving request: it waits for frames, and ends as its transport wants."""

import asyncio

from postroom.sockjs.exchange import Exchange, Gone
from postroom.sockjs.headers import Headers
from postroom.sockjs.polling import Attachment, PollingTransport
from postroom.sockjs.session import OTHER_OPEN
from postroom.sockjs.wires import Wire


class Response:
    """The answer to one receiving request."""

    __slots__ = ("_about", "_attachment", "_exchange", "_max_bytes", "_transport", "_wire")

    def __init__(
        self, exchange: Exchange, transport: PollingTransport, wire: Wire, about: Headers, *, max_bytes: int
    ) -> None:
        self._exchange = exchange
        self._transport = transport
        self._wire = wire
        self._about = about
        self._max_bytes = max_bytes
        self._attachment: Attachment | None = None

    async def run(self) -> None:
        """Answer with what there is for the session's client, or with the sentence that another request is open."""
        if not await self._transport.vacant():
            await self._refuse()
            return
        attachment = self._transport.attach()
        try:
            if self._wire.streams:
                await self._begin()
            if self._wire.streams or not self._transport.session.has_frame:
                await self._watched(attachment)
            else:
                await self._poll(attachment)
        except* Gone:
            pass  # the client has left
        finally:
            self._transport.interrupted(attachment)

    async def _refuse(self) -> None:
        frame = self._wire.dress(OTHER_OPEN)
        if not self._wire.streams:
            await self._exchange.answer(200, self._about, frame)
            return
        await self._begin()
        await self._exchange.part(frame, last=True)

    async def _begin(self) -> None:
        # Proxies are asked to pass on what comes when it comes.
        await self._exchange.start(200, [*self._about, ("X-Accel-Buffering", "no")])
        await self._exchange.part(self._wire.prelude)

    async def _watched(self, attachment: Attachment) -> None:
        """While it waits somebody must look whether the client is still there."""
        if self._exchange.watch(attachment.leave):
            await (self._stream(attachment) if self._wire.streams else self._poll(attachment))
            return
        async with asyncio.TaskGroup() as tasks:
            watcher = tasks.create_task(self._watch(attachment))
            await (self._stream(attachment) if self._wire.streams else self._poll(attachment))
            watcher.cancel()

    async def _watch(self, attachment: Attachment) -> None:
        await self._exchange.gone()
        attachment.leave()

    async def _poll(self, attachment: Attachment) -> None:
        while not attachment.gone:
            frame = self._transport.take()
            if frame is not None:
                self._transport.complete(attachment)
                await self._exchange.answer(200, self._about, self._wire.dress(frame))
                self._transport.settled(attachment)
                return
            await attachment.wait()

    async def _stream(self, attachment: Attachment) -> None:
        transport, sent = self._transport, 0
        while not attachment.gone:
            frame = transport.take()
            if frame is not None:
                dressed = self._wire.dress(frame)
                sent += len(dressed)
                if transport.session.said_goodbye or sent >= self._max_bytes:
                    await self._end(attachment, dressed)
                    return
                attachment.cut = self._exchange.abort
                await self._exchange.part(dressed)
                attachment.cut = None
            elif attachment.ended:
                await self._end(attachment, b"")
                return
            else:
                await attachment.wait()

    async def _end(self, attachment: Attachment, last: bytes) -> None:
        self._transport.complete(attachment)
        await self._exchange.part(last, last=True)
        self._transport.settled(attachment)
