"""Nodes in one event loop, and STOMP clients without sockets.

::

    async with Cluster(2) as nodes:
        async with nodes[0].connect("ann") as ann:
            await ann.send("/user/ben/queue/inbox", b"hello")
        async with nodes[1].connect("ben") as ben:
            await ben.subscribe("/user/queue/inbox")
            assert (await ben.message()).body == b"hello"
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context, copy_context
from types import TracebackType
from typing import Final, Self

from msgspec import structs

from postroom.auth import Authentication
from postroom.auth.dev import DevAuthenticator
from postroom.backplane.base import Backplane
from postroom.backplane.memory import MemoryBackplane
from postroom.clock import Clock
from postroom.config import Settings
from postroom.handlers import Handlers
from postroom.node import Node
from postroom.stomp import Decoder, Frame, Limits, encode_frame
from postroom.store.base import Store
from postroom.store.memory import MemoryStore
from postroom.transport.base import Framing, Handshake, Receiver

_ABNORMAL: Final = 1006
_NORMAL: Final = 1000
_LARGE: Final = Limits(max_body_bytes=1 << 30)
_HANDSHAKE: Final = Handshake(path="/ws", query="", headers={}, peer_address="127.0.0.1", secure=False)
_SECONDS: Final = 10.0
_names = itertools.count(1)

Latency = Callable[[], float]
"""How many seconds the next message is under way."""


def at_once() -> float:
    """No time at all, but not in the same call either."""
    return 0.0


class _Way:
    """One direction of a pipe: what is put in comes out in order, later."""

    def __init__(self, latency: Latency, context: Context | None) -> None:
        self._latency, self._context = latency, context
        self._moving: deque[Callable[[], None]] = deque()
        self._last = 0.0

    def put(self, arrive: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self._last = max(self._last, loop.time() + self._latency())
        self._moving.append(arrive)
        loop.call_at(self._last, self._out, context=self._context)

    def _out(self) -> None:
        if self._moving:
            self._moving.popleft()()

    def clear(self) -> None:
        self._moving.clear()


class Pipe:
    """One client's connection, in memory: a `Transport` to the node, and what a client can do to it.

    `heard` gets each frame, `ended` the close code, once. The client's end answers probes by itself, as a browser
    does, unless `answers_probes` is False; while `reading` is False it neither hears nor answers anything.
    """

    def __init__(
        self,
        member: "Member",
        heard: Callable[[Frame], None],
        ended: Callable[[int, str], None],
        *,
        answers_probes: bool = True,
        latency: Latency = at_once,
    ) -> None:
        """Raises HandshakeRefused."""
        self._heard, self._ended = heard, ended
        self._answers_probes = answers_probes
        self._decoder = Decoder(_LARGE)
        self._context = member.context
        self._up, self._down = _Way(latency, member.context), _Way(latency, copy_context())
        self._arrived: deque[Callable[[], None]] = deque()
        self._paused = False
        self._unread: deque[Callable[[], None]] | None = None
        self._unread_bytes = 0
        self._client_gone = self._node_gone = self._broken = False
        member.node.check(_HANDSHAKE)
        self._receiver: Receiver = member.context.run(member.node.accept, _HANDSHAKE, self)

    # ── what a client does ────────────────────────────────────────────────────────────────────────────

    def say(self, command: str, headers: Mapping[str, str], body: bytes = b"") -> None:
        """Send a frame; nothing happens once the pipe is gone."""
        self.say_bytes(encode_frame("1.2", command, headers, body))

    def say_bytes(self, data: bytes) -> None:
        """Send one WebSocket message: any bytes, such as the line feed that is a heart-beat."""
        if not self._client_gone:
            self._up.put(lambda: self._reach(lambda: self._receiver.receive(data)))

    def hang_up(self, code: int = _NORMAL) -> None:
        """End it behind what was said."""
        if not self._client_gone:
            self._client_gone = True
            self._up.put(lambda: self._reach(lambda: self._lose(code, "")))

    def vanish(self) -> None:
        """The client is gone, what is under way is lost, and the node is not told: no battery, a tunnel."""
        self._client_gone = True
        self._up.clear()

    def cut(self) -> None:
        """Both ends lose the connection; what is under way is lost."""
        self.sever()
        self._up.clear()
        self._up.put(lambda: self._lose(_ABNORMAL, ""))

    def sever(self) -> None:
        """The client loses the connection and what is on its way to it; the node, dead perhaps, is told nothing."""
        if not self._broken:
            self._broken = True
            self._down.clear()
            self._down.put(lambda: self._end(_ABNORMAL, ""))

    @property
    def reading(self) -> bool:
        """Whether the client takes what comes. What it does not take fills the node's buffers."""
        return self._unread is None

    @reading.setter
    def reading(self, reads: bool) -> None:
        unread = self._unread
        if not reads:
            self._unread = deque() if unread is None else unread
        elif unread is not None:
            self._unread = None
            for arrive in unread:
                self._down.put(arrive)
            if self._unread_bytes:
                self._unread_bytes = 0
                self._up.put(lambda: self._reach(lambda: self._receiver.writable()))

    # ── what arrives at the client ────────────────────────────────────────────────────────────────────

    def _hear(self, data: bytes) -> None:
        for frame in self._decoder.frames(data):
            if not isinstance(frame, Frame):
                raise frame
            if not self._client_gone:
                self._heard(frame)

    def _asked(self, token: bytes) -> None:
        if self._answers_probes and not self._client_gone:
            self._up.put(lambda: self._reach(lambda: self._receiver.proved(token)))

    def _end(self, code: int, reason: str) -> None:
        if not self._client_gone:
            self._client_gone = True
            self._ended(code, reason)

    # ── what arrives at the node ──────────────────────────────────────────────────────────────────────

    def _reach(self, arrive: Callable[[], None]) -> None:
        self._arrived.append(arrive)
        self._take()

    def _take(self) -> None:
        while self._arrived and not self._paused and not self._node_gone:
            self._arrived.popleft()()

    def _lose(self, code: int, reason: str) -> None:
        if not self._node_gone:
            self._node_gone = True
            self._receiver.lost(code, reason)

    # ── `Transport` ───────────────────────────────────────────────────────────────────────────────────

    @property
    def framing(self) -> Framing:
        """See `Transport.framing`."""
        return _plain

    def write(self, data: bytes) -> None:
        """See `Transport.write`."""
        self._tell(lambda: self._hear(data), len(data))

    def probe(self, token: bytes) -> bool:
        """See `Transport.probe`."""
        self._tell(lambda: self._asked(token), 0)
        return True

    def close(self, code: int, reason: str = "") -> None:
        """See `Transport.close`."""
        self._tell(lambda: self._end(code, reason), 0)
        self._broken = True
        self._up.put(lambda: self._lose(code, reason))

    def abort(self) -> None:
        """See `Transport.abort`."""
        self.cut()

    def pause_reading(self) -> None:
        """See `Transport.pause_reading`."""
        self._paused = True

    def resume_reading(self) -> None:
        """See `Transport.resume_reading`."""
        self._paused = False
        asyncio.get_running_loop().call_soon(self._take, context=self._context)

    @property
    def buffered_bytes(self) -> int:
        """See `Transport.buffered_bytes`."""
        return self._unread_bytes

    def _tell(self, arrive: Callable[[], None], size: int) -> None:
        if self._broken or self._node_gone:
            return
        if self._unread is None:
            self._down.put(arrive)
        else:
            self._unread.append(arrive)
            self._unread_bytes += size


def _plain(payload: bytes) -> bytes:
    return payload


class Ended(Exception):
    """The connection is gone. `code` is its close code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}".rstrip())
        self.code = code


class Client:
    """A STOMP 1.2 client of one node. Its methods wait for the node's answer, `within` seconds; Ended ends them.

    A context manager that connects, and hangs up.
    """

    def __init__(
        self,
        member: "Member",
        user: str,
        *,
        device: str | None = None,
        answers_probes: bool = True,
        within: float = _SECONDS,
    ) -> None:
        self.pipe = Pipe(member, self._heard, self._lost, answers_probes=answers_probes)
        self.within = within
        self._login = {"login": user, **({"device": device} if device is not None else {})}
        self._frames: deque[Frame] = deque()  # what the test has not asked for; it ends with the test
        self._news = asyncio.Event()
        self._end: Ended | None = None
        self._receipts = itertools.count(1)

    async def __aenter__(self) -> Self:
        """CONNECT."""
        self.pipe.say("CONNECT", {"accept-version": "1.2", "host": "postroom", **self._login})
        await self.frame(lambda frame: frame.command == "CONNECTED")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.pipe.hang_up()

    async def subscribe(self, destination: str, *, id: str = "sub-0", ack: str = "auto") -> None:
        """SUBSCRIBE, in force on return."""
        await self.ask("SUBSCRIBE", {"id": id, "destination": destination, "ack": ack})

    async def send(self, destination: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """SEND, handled on return: stored, where the destination is durable."""
        await self.ask("SEND", {"destination": destination, **(headers or {})}, body)

    async def ack(self, message: Frame) -> None:
        """ACK, and the cursor has moved on return where it can."""
        await self.ask("ACK", {"id": message.headers["ack"]})

    async def ask(self, command: str, headers: Mapping[str, str], body: bytes = b"") -> Frame:
        """Send a frame, and wait for its RECEIPT."""
        receipt = f"r-{next(self._receipts)}"
        self.pipe.say(command, {**headers, "receipt": receipt}, body)
        return await self.frame(lambda frame: frame.headers.get("receipt-id") == receipt)

    async def message(self) -> Frame:
        """The next MESSAGE."""
        return await self.frame(lambda frame: frame.command == "MESSAGE")

    async def frame(self, wanted: Callable[[Frame], bool]) -> Frame:
        """The first frame that is `wanted`; what came before it stays. Raises TimeoutError, and Ended."""
        async with asyncio.timeout(self.within):
            while True:
                for frame in self._frames:
                    if wanted(frame):
                        self._frames.remove(frame)
                        return frame
                if self._end is not None:
                    raise self._end
                self._news.clear()
                await self._news.wait()

    def _heard(self, frame: Frame) -> None:
        self._frames.append(frame)
        self._news.set()

    def _lost(self, code: int, reason: str) -> None:
        self._end = Ended(code, reason)
        self._news.set()


class Member:
    """A place for a node in a cluster: it can be stopped, or crash, and be started anew as another incarnation."""

    def __init__(self, name: str, make: Callable[[], Node], tasks: asyncio.TaskGroup) -> None:
        self.name = name
        self.context = copy_context()
        """Where all that the node does is done."""
        self.pipes: list[Pipe] = []
        self._make = make
        self._tasks = tasks
        self._node: Node | None = None
        self._task: asyncio.Task[None] | None = None
        self._end = asyncio.Event()

    @property
    def up(self) -> bool:
        """Whether there is a node."""
        return self._node is not None

    @property
    def node(self) -> Node:
        """The node, which must be up."""
        assert self._node is not None, f"{self.name} is down"
        return self._node

    async def start(self) -> None:
        """Start a node. Raises StoreUnavailable."""
        self.context = copy_context()
        self._end = asyncio.Event()
        opened: asyncio.Future[Node] = asyncio.get_running_loop().create_future()
        self._task = self._tasks.create_task(self._live(opened), context=self.context)
        self._node = await opened

    async def _live(self, opened: asyncio.Future[Node]) -> None:
        try:
            async with self._make() as node:
                opened.set_result(node)
                await self._end.wait()
        except Exception as error:
            if opened.done():
                raise
            opened.set_exception(error)
        finally:
            self._node = None
            opened.cancel()

    def connect(self, user: str, *, device: str | None = None, answers_probes: bool = True) -> Client:
        """A client of this node."""
        client = Client(self, user, device=device, answers_probes=answers_probes)
        self.pipes.append(client.pipe)
        return client

    async def stop(self) -> None:
        """Close the node as SIGTERM does, without the time to drain."""
        self._end.set()
        await self._ended()

    async def crash(self) -> None:
        """Take the node away in the middle of what it does. Its clients lose their connections."""
        for pipe in self.pipes:
            pipe.sever()
        if self._task is not None:
            self._task.cancel()
        await self._ended()

    async def _ended(self) -> None:
        self._node = None
        self.pipes.clear()
        if self._task is not None:
            await asyncio.wait({self._task})


class Cluster:
    """`count` nodes over the engines that `store` and `backplane` make for each; in memory, unless told otherwise.

    A context manager that starts all nodes, gives their list, and stops those that are up.
    """

    def __init__(
        self,
        count: int = 2,
        *,
        settings: Settings | None = None,
        store: Callable[[str], Store] | None = None,
        backplane: Callable[[str], Backplane] | None = None,
        clock: Clock | None = None,
        handlers: Handlers | None = None,
    ) -> None:
        url = f"memory:cluster-{next(_names)}"
        self._settings = settings if settings is not None else Settings()
        self._store = store if store is not None else lambda name: MemoryStore(url, clock=clock)
        self._backplane = backplane if backplane is not None else lambda name: MemoryBackplane(url)
        self._clock, self._handlers = clock, handlers
        self._tasks = asyncio.TaskGroup()
        self.members = [
            Member(name, lambda name=name: self._node(name), self._tasks)  # type: ignore[misc]
            for name in (f"node-{number}" for number in range(1, count + 1))
        ]

    def _node(self, name: str) -> Node:
        return Node(
            structs.replace(self._settings, node_id=name),
            Authentication([DevAuthenticator()]),
            handlers=self._handlers,
            clock=self._clock,
            store=self._store(name),
            backplane=self._backplane(name),
        )

    async def __aenter__(self) -> Sequence[Member]:
        """Start all. Raises StoreUnavailable."""
        await self._tasks.__aenter__()
        for member in self.members:
            await member.start()
        return self.members

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop those that are up; they crash where there was an error."""
        for member in self.members:
            if member.up:
                await (member.stop() if kind is None else member.crash())
        await self._tasks.__aexit__(kind, error, trace)
