"""The port before the nodes where there is no nginx: each new connection goes to the next node."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

_CONNECT_SECONDS: Final = 2.0
_BYTES: Final = 65_536

_Pipe = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Front:
    """Passes bytes on, both ways, and knows nothing of them. A node that takes no connection is passed over."""

    def __init__(self, nodes: Sequence[int]) -> None:
        self._nodes = nodes
        self._turn = 0

    async def serve(self, host: str, port: int) -> asyncio.Server:
        """Listen. Raises OSError."""
        return await asyncio.start_server(self._client, host, port)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            node = await self._next()
            if node is not None:
                async with asyncio.TaskGroup() as both:
                    both.create_task(_pass_on(reader, node[1]))
                    both.create_task(_pass_on(node[0], writer))
        finally:
            writer.close()

    async def _next(self) -> _Pipe | None:
        for _ in self._nodes:
            port = self._nodes[self._turn % len(self._nodes)]
            self._turn += 1
            with contextlib.suppress(OSError):  # TimeoutError too
                async with asyncio.timeout(_CONNECT_SECONDS):
                    return await asyncio.open_connection("127.0.0.1", port)
        return None


async def _pass_on(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(_BYTES):
            to.write(data)
            await to.drain()
    # Either end's end is that of both: nothing that HTTP or WebSocket needs comes after it.
    to.close()
