"""The workers of one machine answer for one another: whoever is asked for metrics asks the others.

Each listens at a Unix socket of its own in a folder that only they enter, and says there how it is: one `Status` in
JSON to whoever connects.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

_ASK_SECONDS: Final = 1.0


class Status(Struct, frozen=True):
    """How one worker is. `reasons`: why it should get no new clients; empty where it should."""

    reasons: Sequence[str]
    counters: Mapping[str, float]
    gauges: Mapping[str, float]


class Siblings:
    """The workers `names`, of which `own` is this one."""

    def __init__(self, folder: Path, names: Sequence[str], own: str) -> None:
        self._folder = folder
        self._names = names
        self._own = own

    @contextlib.asynccontextmanager
    async def answering(self, status: Callable[[], Status]) -> AsyncIterator[None]:
        """While it is open, the others learn this worker's `status`."""

        async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                writer.write(msgspec.json.encode(status()))
                await writer.drain()
            writer.close()

        place = self._place(self._own)
        place.unlink(missing_ok=True)  # that of an earlier start
        server = await asyncio.start_unix_server(answer, place)
        try:
            yield
        finally:
            server.close()

    async def all(self, own: Status) -> Mapping[str, Status | None]:
        """How every worker is, this one being `own`; None for one that does not answer within a second."""
        others = [name for name in self._names if name != self._own]
        found = dict(zip(others, await asyncio.gather(*map(self._ask, others)), strict=True))
        return {name: own if name == self._own else found[name] for name in self._names}

    async def _ask(self, name: str) -> Status | None:
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self._place(name))
                try:
                    return msgspec.json.decode(await reader.read(), type=Status)
                finally:
                    writer.close()
        except (OSError, msgspec.DecodeError):  # TimeoutError too
            return None

    def _place(self, name: str) -> Path:
        return self._folder / f"worker-{self._names.index(name) + 1}.sock"
