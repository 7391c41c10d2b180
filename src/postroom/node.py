"""The composition root: opens the store, builds the parts, starts, drains and stops them."""

import asyncio
import contextlib
import random
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Any, Final, Self, cast

import structlog

from postroom import stomp
from postroom.auth import Authentication
from postroom.backplane.base import Backplane, open_backplane, serves
from postroom.channel import ChannelRegistry
from postroom.clock import Clock, SystemClock
from postroom.config import Settings
from postroom.destination import Destinations, UserQueue
from postroom.errors import AuthenticationFailed, HandshakeRefused, StoreUnavailable
from postroom.gateway import Desk, Gateway, Limits
from postroom.handlers import Handlers
from postroom.hub import Hub
from postroom.identity import NodeId, UserName
from postroom.mailbox import Flow, Mailbox
from postroom.memory_link import name_of
from postroom.mesh import Mesh, MeshTimes
from postroom.message import Message, StoredMessage
from postroom.metrics import Metrics
from postroom.outbox import Flusher
from postroom.position import LogKey
from postroom.roaming import Roaming
from postroom.router import Router
from postroom.store import directory_of, open_store
from postroom.store.base import DirectoryStore, Store
from postroom.transport.base import Endpoint, Handshake, Receiver, Transport
from postroom.transport.forwarded import TrustedProxies
from postroom.transport.origin import origin_allowed
from postroom.wheel import Wheel

_log = structlog.get_logger("postroom.node")

_HOUSEKEEPING_SECONDS: Final = 5.0
_PROBE_SECONDS: Final = 1.0
_SERVICE_RESTART: Final = 1012
_LAST_WORDS_SECONDS: Final = 10.0
_HEARTBEAT_MARGIN_SECONDS: Final = 10.0


class Node:
    """One server process. Opened as a context manager; `accept` and `check` serve its WebSocket endpoints.

    Its background tasks live in a task group: the death of one ends the node, loudly. A `store` or `backplane` that
    is handed in takes the place of the one that the settings name; with a backplane, it must be a directory too.
    """

    def __init__(
        self,
        settings: Settings,
        authentication: Authentication,
        *,
        handlers: Handlers | None = None,
        clock: Clock | None = None,
        store: Store | None = None,
        backplane: Backplane | None = None,
    ) -> None:
        self._settings = settings
        self._authentication = authentication
        self._handlers = handlers if handlers is not None else Handlers()
        self._clock = clock if clock is not None else SystemClock()
        self._stack = AsyncExitStack()
        self._tasks = asyncio.TaskGroup()
        self._running: list[asyncio.Task[None]] = []
        self._draining = False
        self._proxies = TrustedProxies(settings.trusted_proxies)
        self._over = False
        self._store: Store = store if store is not None else open_store(settings.store)
        url = backplane_url(settings) if store is None else settings.backplane
        self._backplane = backplane if backplane is not None else open_backplane(url) if url else None
        self._directory: DirectoryStore | None = None
        if self._backplane is not None:
            handed_in = cast("DirectoryStore", store)
            self._directory = handed_in if store is not None else directory_of(self._store, settings.store)
        self._mesh: Mesh | None = None
        self.metrics = Metrics()
        self.channels = ChannelRegistry(settings.channels)
        self.hub: Hub[Gateway] = Hub()

    async def __aenter__(self) -> Self:
        """Open the store, then start. Raises StoreUnavailable with a sentence for the operator."""
        await self._stack.__aenter__()
        try:
            await self._stack.enter_async_context(self._store)
            self._build()
            if self._mesh is not None:
                await self._mesh.join()
            await self._stack.enter_async_context(self._tasks)
        except BaseException:
            await self._stack.aclose()
            raise
        work = {
            "appender": self.mailbox.run(),
            "wheel": self._wheel.run(),
            "housekeeping": self._housekeeping(),
            "probe": self._probe_store(),
        }
        if self._mesh is not None:
            work |= self._mesh.work()
        self._running = [self._tasks.create_task(each, name=name) for name, each in work.items()]
        if not self._store.durable:
            _log.warning("the store keeps nothing: accepted messages are lost when this process ends")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish what was accepted, then stop."""
        for gateway in list(self._desk.open):
            gateway.close(_SERVICE_RESTART, "the server is going away")
        if kind is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS_SECONDS):
                    await self.mailbox.flush()
                    if self._mesh is not None:
                        await self._mesh.leave()
        self._over = True
        for task in self._running:
            task.cancel()
        await self._stack.__aexit__(kind, error, trace)

    def _build(self) -> None:
        settings, metrics = self._settings, self.metrics
        flow = settings.delivery
        self.mailbox = Mailbox(
            self._store,
            flow=Flow(
                page_messages=flow.page_messages,
                confirm_seconds=flow.confirm_seconds,
                confirm_batch=flow.confirm_batch,
            ),
            metrics=metrics,
            clock=self._clock,
            spawn=self._spawn,
            followed_elsewhere=self._followed_elsewhere if self._backplane is not None else None,
        )
        destinations = Destinations(settings.prefixes)
        if self._backplane is not None and self._directory is not None:
            self._mesh = self._build_mesh(self._backplane, self._directory)
        relay = self._mesh.relay if self._mesh is not None else None
        self.router = Router(destinations, self.channels, self.hub, self.mailbox, metrics, relay)
        self._wheel = Wheel(self._clock)
        self._desk = Desk(
            name=f"postroom/{settings.node_id}",
            hub=self.hub,
            router=self.router,
            mailbox=self.mailbox,
            destinations=destinations,
            channels=self.channels,
            handlers=self._handlers,
            authentication=self._authentication,
            flusher=Flusher(asyncio.get_running_loop()),
            wheel=self._wheel,
            clock=self._clock,
            metrics=metrics,
            limits=_limits(settings),
            spawn=self._spawn,
            client_of=self._proxies.client_of,
            interest=self._mesh.interest if self._mesh is not None else None,
        )

    def _build_mesh(self, backplane: Backplane, directory: DirectoryStore) -> Mesh:
        settings, times = self._settings, self._settings.cluster
        return Mesh(
            NodeId(settings.node_id),
            routing=settings.routing,
            times=MeshTimes(
                lease=times.lease_seconds,
                renew=times.renew_seconds,
                heartbeat=times.heartbeat_seconds,
                reconcile=times.reconcile_seconds,
                route_cache=times.route_cache_seconds,
            ),
            backplane=backplane,
            store=directory,
            hub=self.hub,
            mailbox=self.mailbox,
            metrics=self.metrics,
            clock=self._clock,
            receive=lambda subject, sender, item: self.router.receive(subject, sender, item),
            fenced=self._fenced,
            spawn=self._spawn,
            quiet_seconds=settings.sockjs.heartbeat_seconds + _HEARTBEAT_MARGIN_SECONDS,
        )

    def _fenced(self) -> None:
        _log.error("other nodes held this one for dead: its clients are sent away", clients=len(self._desk.open))
        for gateway in list(self._desk.open):
            gateway.close(_SERVICE_RESTART, "this node was cut off; connect again")

    async def _followed_elsewhere(self, log: LogKey, owner: str) -> bool:
        return self._mesh is not None and await self._mesh.followed_elsewhere(log, owner)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if self._over:  # a timer of a moment ago: whom it would serve is gone
            work.close()
            return
        self._tasks.create_task(self._guarded(work))

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        # One subscription's trouble is not the node's: it is logged, and the session goes on or is closed.
        try:
            await work
        except Exception:
            _log.exception("work for a session failed")

    async def _housekeeping(self) -> None:
        while True:
            await asyncio.sleep(_HOUSEKEEPING_SECONDS * random.uniform(0.8, 1.2))
            try:
                while await self._store.sweep():
                    await asyncio.sleep(0.05)
            except StoreUnavailable as error:
                self.metrics.store_failures += 1
                _log.warning("the store could not be swept", reason=str(error))

    async def _probe_store(self) -> None:
        while True:
            await asyncio.sleep(_PROBE_SECONDS * random.uniform(0.8, 1.2))
            await self.mailbox.probe()

    # ── the door ──────────────────────────────────────────────────────────────────────────────────────

    def endpoint(self) -> Endpoint:
        """What is served at a WebSocket path that speaks STOMP."""
        return Endpoint(accept=self.accept, check=self.check, subprotocols=stomp.SUBPROTOCOLS)

    def check(self, handshake: Handshake) -> None:
        """Whether this client may come in. Raises HandshakeRefused."""
        limits = self._settings.limits
        try:
            if self._draining:
                raise HandshakeRefused(503, "the server is going away; connect again")
            if not origin_allowed(handshake, self._settings.origins):
                raise HandshakeRefused(403, "this origin is not allowed")
            if len(self._desk.open) >= limits.sessions:
                raise HandshakeRefused(503, "the server is full")
            if self._desk.addresses[self._proxies.client_of(handshake)] >= limits.sessions_per_address:
                raise HandshakeRefused(429, "too many connections from your address")
            try:
                self._authentication.at_handshake(handshake)
            except AuthenticationFailed as error:
                self.metrics.authentication_failures += 1
                raise HandshakeRefused(401, str(error)) from error
        except HandshakeRefused:
            self.metrics.connections_refused += 1
            raise

    @property
    def roaming(self) -> Roaming | None:
        """How SockJS sessions of other nodes are reached; None for a node alone."""
        return self._mesh.roaming if self._mesh is not None else None

    def identify(self, handshake: Handshake) -> UserName | None:
        """Whom a request's credentials name, if anybody."""
        with contextlib.suppress(AuthenticationFailed):
            principal = self._authentication.at_handshake(handshake)
            return principal.name if principal is not None else None
        return None

    def accept(self, handshake: Handshake, transport: Transport) -> Receiver:
        """Take a new pipe."""
        return Gateway(self._desk, handshake, transport)

    # ── for the application ───────────────────────────────────────────────────────────────────────────

    async def send_to_user(
        self, user: UserName, name: str, body: bytes, *, sender: UserName | None, headers: Mapping[str, str]
    ) -> None:
        """Send `body` to `name` (`/topic/reply`) of `user`; stored on return where its channel is durable.

        Raises Refused, or StoreUnavailable.
        """
        route = self.router.route_of(UserQueue(user, name))
        told = dict(headers) if sender is None else {**headers, "sender": sender}
        message_id = self._desk.message_id() if route.log is None else ""
        await self.router.send(route, Message(route.destination, sender, told, body, message_id))

    def pull(self, user: UserName, name: str) -> AbstractAsyncContextManager[Sequence[StoredMessage]]:
        """What waits in the user's mailbox; see `Mailbox.pull`."""
        return self.mailbox.pull(LogKey(user, name))

    def reasons_not_ready(self) -> list[str]:
        """Why this node should get no new clients; empty where it should."""
        reasons = []
        if self._draining:
            reasons.append("draining")
        if not self.mailbox.available:
            reasons.append("the store is unavailable")
        if self._mesh is not None:
            reasons += self._mesh.reasons_not_ready()
        return reasons

    def gauges(self) -> Mapping[str, float]:
        """What there is now."""
        return {
            "connections": len(self._desk.open),
            "sessions": self.hub.session_count,
            "users": len(self.hub.users),
            "subscriptions": self.hub.subscriptions,
            "appends_waiting": self.mailbox.waiting,
            "cursors_unproven": self.mailbox.unproven,
            **(self._mesh.gauges() if self._mesh is not None else {}),
        }

    # ── the end ───────────────────────────────────────────────────────────────────────────────────────

    async def drain(self) -> None:
        """Let nobody new in, and move the clients away with 1012, spread over the drain time."""
        self._draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_seconds):
                await self.mailbox.flush()
        gateways = list(self._desk.open)
        random.shuffle(gateways)
        if gateways:
            _log.info("draining", clients=len(gateways), seconds=self._settings.drain_seconds)
        pause = self._settings.drain_seconds / max(1, len(gateways))
        owed = 0.0
        for gateway in gateways:
            gateway.close(_SERVICE_RESTART, "the server is going away; connect again")
            owed += pause * random.uniform(0.5, 1.5)
            if owed > 0.01:
                await asyncio.sleep(owed)
                owed = 0.0
        if self._mesh is not None:
            self._mesh.roaming.drain()


def backplane_url(settings: Settings) -> str:
    """The URL of the backplane; empty for a node alone. A store that can be one too is the default.

    A store in memory without a name is nobody else's, so that it needs none.
    """
    if settings.backplane:
        return settings.backplane
    alone = settings.store.startswith("memory:") and not name_of(settings.store)
    return settings.store if not alone and serves(settings.store) else ""


def _limits(settings: Settings) -> Limits:
    limits, delivery = settings.limits, settings.delivery
    return Limits(
        frame=stomp.Limits(
            max_headers=limits.max_headers,
            max_header_bytes=limits.max_header_bytes,
            max_body_bytes=limits.max_message_bytes,
        ),
        heart_beat=(settings.heart_beat.send_ms, settings.heart_beat.receive_ms),
        subscriptions=limits.subscriptions_per_session,
        sessions_per_user=limits.sessions_per_user,
        frames_per_second=limits.frames_per_second,
        connect_seconds=limits.connect_seconds,
        write_buffer_bytes=limits.write_buffer_bytes,
        pending_appends=limits.pending_appends,
        pending_append_bytes=limits.pending_append_bytes,
        transactions=limits.transactions,
        in_flight_messages=delivery.max_in_flight_messages,
        in_flight_bytes=delivery.max_in_flight_bytes,
        probe_seconds=delivery.probe_timeout_seconds,
        append_missing_nul=settings.append_missing_nul,
    )
