"""Calls to the scripts, each for many requests.

A request that meets trouble of the moment (a fail-over, a server that loads its data, a cut connection) is made again
for as long as a call may take. An append whose outcome is not known is flagged then, and the script looks for it first.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Final

from redis import exceptions as redis_errors

from postroom.errors import OutcomeUnknown, StoreUnavailable
from postroom.store.lanes import FIRST_PAUSE, LONGEST_PAUSE, TRIES, Request
from postroom.store.redis_codec import flagged
from postroom.store.redis_servers import NotSent, Script, Server, Servers, Unanswered

_MOMENTARY: Final = ("BUSY", "NOREPLICAS", "LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN")
_MOMENTARY_IN: Final = ("non local key", "cluster is down")
_MOMENTARY_ERRORS: Final = (
    redis_errors.BusyLoadingError,
    redis_errors.ReadOnlyError,
    redis_errors.MasterDownError,
    redis_errors.ClusterDownError,
    redis_errors.TryAgainError,
    redis_errors.AskError,
    redis_errors.MovedError,
)


class ScriptRequest(Request):
    """One item for a script, and what became of it; or several that go in one call and have a list of answers.

    `tag` is the hash tag of their keys.
    """

    __slots__ = ("_reason", "alone", "items", "server", "tag", "unknown")

    def __init__(self, tag: bytes, *items: bytes) -> None:
        # One for each message: a call of the base's would take as long again.
        self.answer: Any = None
        self.error = None
        self.call = None
        self.tag = tag
        self.items = items
        self.server: Server | None = None
        self.unknown = False
        self.alone = False
        self._reason = "it was given up"

    @property
    def open(self) -> bool:
        """Whether it is still to be made."""
        return self.answer is None and self.error is None

    def fail(self, reason: str) -> None:
        """There will be no answer."""
        self.error = OutcomeUnknown(reason) if self.unknown else StoreUnavailable(reason)

    def meet(self, reason: str) -> None:
        """Trouble of the moment. Where the server was in trouble before, nobody waits for its end again."""
        self._reason = reason
        if self.server is not None and self.server.down:
            self.fail(reason)

    def give_up(self) -> None:
        """The time is over."""
        if self.server is not None:
            self.server.down = True
        self.fail(self._reason)

    def abandon(self) -> None:
        """See `Request.abandon`: what has its answer keeps it."""
        if self.open:
            self.unknown = True
            self.fail(self._reason)


def size_of(request: ScriptRequest) -> int:
    """In bytes."""
    items = request.items
    return len(items[0]) if len(items) == 1 else sum(map(len, items))


class Kind:
    """One script, and how it is called.

    `wrote`: a call without an answer may have been done, and the caller must be told so. `appends`: it travels on the
    connection of its own. At most `at_once` requests and about `max_bytes` go in one call.
    """

    def __init__(
        self,
        script: Script,
        unpack: Callable[[Any], Sequence[Any]],
        *,
        arguments: Callable[[], Sequence[bytes]] = tuple,
        wrote: bool = False,
        appends: bool = False,
        at_once: int = 512,
        max_bytes: int = 4 * 1024 * 1024,
    ) -> None:
        self.script, self.unpack, self.arguments = script, unpack, arguments
        self.wrote, self.appends, self.at_once, self.max_bytes = wrote, appends, at_once, max_bytes


class Caller:
    """Calls scripts at the servers that own what is asked for.

    A call takes `timeout` seconds at most. `replicas` of a server must have an append within `wait` seconds. `now`
    is for tests: microseconds, or 0 for the server's own clock.
    """

    def __init__(self, servers: Servers, *, timeout: float, replicas: int, wait: float, now: Callable[[], int]) -> None:
        self._servers = servers
        self._timeout, self._replicas, self._wait = timeout, replicas, wait
        self._now = now

    async def call(self, kind: Kind, requests: Sequence[ScriptRequest]) -> None:
        """Give each request its answer or its error."""
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + self._timeout, FIRST_PAUSE
        left = requests
        while True:
            await asyncio.gather(
                *(self._attempt(kind, server, group, deadline - loop.time()) for server, group in self._groups(left))
            )
            left = [each for each in left if each.open]
            if not left:
                return
            if loop.time() + pause >= deadline:
                for request in left:
                    request.give_up()
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            await self._servers.refresh()

    def _groups(self, requests: Iterable[ScriptRequest]) -> Iterable[tuple[Server | None, list[ScriptRequest]]]:
        groups: dict[tuple[Server | None, bytes], list[ScriptRequest]] = {}
        owner = self._servers.owner
        for each in requests:
            server = each.server = owner(each.tag)
            key = (server, each.tag if each.alone else b"")
            if (group := groups.get(key)) is None:
                group = groups[key] = []
            group.append(each)
        return [(server, group) for (server, _), group in groups.items()]

    async def _attempt(self, kind: Kind, server: Server | None, group: Sequence[ScriptRequest], left: float) -> None:
        if server is None:
            for request in group:
                request.meet("no server of the cluster owns its slot")
            return
        seconds = min(self._timeout / TRIES, max(left, 0.001))
        try:
            replies = await self._exchange(kind, server, group, seconds)
        except NotSent as error:
            self._meet(group, f"the server cannot be reached: {error}")
        except Unanswered as error:
            self._meet(group, f"the server does not answer: {error}", unknown=kind)
        except redis_errors.RedisError as error:
            self._refused(group, error)
        else:
            server.down = False
            if isinstance(replies[0], Exception):
                self._refused(group, replies[0])
            elif len(replies) > 1 and not (isinstance(replies[1], int) and replies[1] >= self._replicas):
                reason = f"{replies[1]} of {self._replicas} replicas have it"
                self._meet(group, reason, unknown=kind)
            else:
                answers = iter(kind.unpack(replies[0]))
                for request in group:
                    count = len(request.items)
                    request.answer = next(answers) if count == 1 else [*islice(answers, count)]

    async def _exchange(self, kind: Kind, server: Server, group: Sequence[ScriptRequest], seconds: float) -> list[Any]:
        arguments = (b"%d" % self._now(), b"".join([item for each in group for item in each.items]), *kind.arguments())
        commands = [kind.script.call(*arguments)]
        if kind.appends and self._replicas:
            # In the same go, and so on the same connection: WAIT counts from the connection's own last write.
            commands.append((b"WAIT", b"%d" % self._replicas, b"%d" % round(self._wait * 1000)))
            seconds += self._wait
        send = server.append if kind.appends else server.exchange
        replies = await send(commands, seconds)
        if isinstance(replies[0], redis_errors.NoScriptError):
            commands[0] = kind.script.call(*arguments, by_text=True)
            replies = await send(commands, seconds)
        return replies

    def _refused(self, group: Sequence[ScriptRequest], error: Exception) -> None:
        text = str(error)
        kind = type(error).__name__
        local = any(part in text for part in _MOMENTARY_IN)
        if local or isinstance(error, _MOMENTARY_ERRORS) or text.startswith(_MOMENTARY):
            self._meet(group, f"the server refuses for now: {text or kind}", alone=local)
        elif "script:" in text and len({request.tag for request in group}) > 1:
            # One log whose keys are not what they should be must not stop the others.
            self._meet(group, f"the server refuses: {text}", alone=True)
        else:
            for request in group:
                request.fail(f"the server refuses: {text or kind}")

    def _meet(
        self, group: Sequence[ScriptRequest], reason: str, *, unknown: Kind | None = None, alone: bool = False
    ) -> None:
        for request in group:
            request.alone = request.alone or alone
            if unknown is not None and unknown.wrote:
                request.unknown = True
                if unknown.appends:
                    request.items = tuple(map(flagged, request.items))
            request.meet(reason)
