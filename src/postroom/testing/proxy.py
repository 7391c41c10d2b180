"""A TCP proxy that does to connections what networks do: cuts them, delays them, swallows what they carry.

```
with Proxy(("127.0.0.1", 6379)) as proxy:
    connect_to(f"redis://127.0.0.1:{proxy.port}")
    proxy.cut()
```
"""

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable
from typing import Final, Self

Address = tuple[str, int]
"""A host and a port."""

Change = Callable[[bytes], bytes]
"""What goes on of what comes."""

_PIECE: Final = 65_536
_SECONDS: Final = 5.0
_ANYWHERE: Final = ("127.0.0.1", 0)


class Proxy:
    """Listens at `at` (port 0: one that is free), and forwards to `target`; `seed` decides what chance does.

    It runs in a thread and a loop of its own. Each method returns once it is done, and may be called from any thread;
    it blocks for as long. A connection that `target` does not take is closed.
    """

    def __init__(self, target: Address, *, at: Address = _ANYWHERE, seed: int = 1) -> None:
        self._target = target
        self._at = at
        self._port = at[1]
        self.random = random.Random(seed)
        self._delay = self._scatter = 0.0
        self._refusing = False
        self._flowing, self._answering = asyncio.Event(), asyncio.Event()
        self._flowing.set()
        self._answering.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._trouble: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    @property
    def port(self) -> int:
        """Where it listens, once it was started."""
        return self._port

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Listen. Raises OSError where that is not possible."""
        self._thread.start()
        if not self._ready.wait(_SECONDS):
            raise TimeoutError("the proxy does not start")
        if self._trouble is not None:
            raise self._trouble

    def close(self) -> None:
        """End, and cut everything."""
        if self._thread.is_alive():
            self.heal()
            self.refuse()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_SECONDS)

    def changes(self) -> tuple[Change, Change]:
        """What becomes of requests and of answers on a new connection. For subclasses."""
        return _same, _same

    # ── what may happen ───────────────────────────────────────────────────────────────────────────────

    def cut(self) -> None:
        """Reset every connection; what was swallowed is lost."""
        self._call(self._cut)

    def refuse(self) -> None:
        """Reset every connection, and each new one."""

        def refuse() -> None:
            self._refusing = True
            self._cut()

        self._call(refuse)

    def blackhole(self) -> None:
        """Connections stay, new ones are taken, and nothing goes through."""
        self._call(self._flowing.clear)

    def mute(self) -> None:
        """What the target is told goes through, and nothing that it answers."""
        self._call(self._answering.clear)

    def delay(self, seconds: float) -> None:
        """Everything takes so much longer, both ways."""
        self._delay = seconds

    def scatter(self, seconds: float) -> None:
        """Each connection takes longer by a time of its own, up to `seconds`: they overtake one another."""
        self._scatter = seconds

    def heal(self) -> None:
        """Be a good network again. What was swallowed goes through now; connections that waited are as they were."""

        def heal() -> None:
            self._refusing = False
            self._flowing.set()
            self._answering.set()

        self._delay = self._scatter = 0.0
        self._call(heal)

    # ── inside ────────────────────────────────────────────────────────────────────────────────────────

    def _call(self, what: Callable[[], object]) -> None:
        done = threading.Event()

        def call() -> None:
            what()
            done.set()

        self._loop.call_soon_threadsafe(call)
        if not done.wait(_SECONDS):
            raise TimeoutError("the proxy does not answer")

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            server = self._loop.run_until_complete(asyncio.start_server(self._take, *self._at))
        except OSError as error:
            self._trouble = error
            self._loop.close()
            self._ready.set()
            return
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _end(self) -> None:
        """Let nothing be left for the garbage collector, which would complain in somebody else's test."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # what was aborted is told so in the next turns

    def _cut(self) -> None:
        for writer in tuple(self._writers):
            _reset(writer)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair = {writer}
        self._writers.add(writer)
        slower = self.random.random()
        try:
            if self._refusing:
                _reset(writer)
                return
            with contextlib.suppress(OSError):
                far_reader, far_writer = await asyncio.open_connection(*self._target)
                pair.add(far_writer)
                self._writers.add(far_writer)
                requests, answers = self.changes()
                await asyncio.gather(
                    self._pump(reader, far_writer, slower, (self._flowing,), requests),
                    self._pump(far_reader, writer, slower, (self._flowing, self._answering), answers),
                )
        finally:
            self._writers -= pair
            for each in pair:
                each.transport.abort()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        slower: float,
        gates: tuple[asyncio.Event, ...],
        change: Change,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_PIECE):
                if pause := self._delay + self._scatter * slower:
                    await asyncio.sleep(pause)
                for gate in gates:
                    await gate.wait()
                writer.write(change(data))
                await writer.drain()
        writer.transport.abort()


def _same(data: bytes) -> bytes:
    return data


def _reset(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
