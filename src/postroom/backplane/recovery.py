"""What brings an engine's connection up again: what the contract says of `run`, once for all engines that need it."""

import asyncio
import contextlib
import random
import ssl
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import structlog

from postroom.cancelling import cancelled, end_if_cancelled
from postroom.errors import BackplaneUnavailable

_log = structlog.get_logger("postroom.backplane")

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0
_STEADY_SECONDS: Final = 5.0

_UNTRUSTED: Final = ("ALERT_UNKNOWN_CA", "ALERT_CERTIFICATE_REQUIRED", "ALERT_BAD_CERTIFICATE")
"""How a server says of a client's certificate that it is missing, or nobody's that it knows."""


class Cut(Exception):
    """The connection is to be built up again."""


Session = Callable[[Callable[[], None]], Awaitable[None]]
"""Connects, puts all subscriptions in force, calls what it is given, and stays until the connection is lost."""


class Recovery:
    """Runs sessions one after another, with a growing, jittered pause between them.

    `losses` are the driver's errors that a new connection may mend; others end `run`.
    """

    def __init__(self, *losses: type[Exception]) -> None:
        self._losses: tuple[type[Exception], ...] = (Cut, OSError, TimeoutError, *losses)
        self._up = asyncio.Event()
        self._cut = asyncio.Event()
        self._before = False
        self._reason = ""

    @property
    def up(self) -> bool:
        """Whether all subscriptions are in force."""
        return self._up.is_set()

    @property
    def fresh(self) -> bool:
        """Whether no session has been up yet: what comes now was subscribed for, and nobody assumes a loss."""
        return not self._before

    async def run(self, session: Session, interrupted: Callable[[], None]) -> None:
        """Run `session` until cancelled; `interrupted` each time it is up again."""
        pause = _FIRST_PAUSE
        loop = asyncio.get_running_loop()
        since = float("inf")

        def established() -> None:
            nonlocal since
            end_if_cancelled()
            since = loop.time()
            if self._before:
                _log.warning("the backplane is back")
                interrupted()
            self._before = True
            self._reason = ""
            self._up.set()

        while True:
            try:
                self._cut.clear()
                with translated():
                    await session(established)
                raise Cut("the connection was closed")
            except* self._losses as group:
                self._reason = reason_of(group)
                _log.warning("the backplane is cut off; trying again", reason=self._reason)
            finally:
                self._up.clear()
            end_if_cancelled()
            if loop.time() - since > _STEADY_SECONDS:
                pause = _FIRST_PAUSE
            since = float("inf")
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, _LONGEST_PAUSE)

    def down(self) -> None:
        """Say that the session is over, before it is taken apart: who calls now waits for the next."""
        self._up.clear()

    def cut(self) -> None:
        """End the session; the next begins."""
        self._cut.set()

    async def until_cut(self, seconds: float | None = None) -> bool:
        """Whether `cut` was called before so many seconds had passed (None: wait until it is)."""
        try:
            async with asyncio.timeout(seconds):
                await self._cut.wait()
        except TimeoutError:
            return False
        return True

    async def wait_up(self) -> None:
        """Return once all subscriptions are in force."""
        await self._up.wait()

    def demand_up(self) -> None:
        """Raise BackplaneUnavailable unless there is a connection."""
        if not self.up:
            raise BackplaneUnavailable("the backplane is not connected" + (" yet" if self.fresh else ""))

    def unavailable(self, error: BaseException) -> BackplaneUnavailable:
        """What to raise where `error` ended a call; of one that waited in vain for a connection, why there is none."""
        in_vain = isinstance(error, TimeoutError) and not self.up
        return BackplaneUnavailable(f"the backplane does not answer: {(in_vain and self._reason) or reason_of(error)}")


@contextlib.contextmanager
def translated(*errors: type[Exception]) -> Iterator[None]:
    """Turn a driver's `errors` into Cut, and a cancellation that nobody asked for: drivers tell so of a connection that
    ends meanwhile, and a task would die of it without a word."""
    try:
        yield
    except asyncio.CancelledError:
        if cancelled():
            raise
        raise Cut("the connection was lost") from None
    except Cut:
        raise
    except errors as error:
        raise Cut(reason_of(error)) from error


def reason_of(error: BaseException) -> str:
    """The first error of a group, in words."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, TimeoutError):
        return str(error) or "no answer in time"
    if isinstance(error, ssl.SSLError) and (error.reason or "").endswith(_UNTRUSTED):
        return f"the server wants a certificate that it trusts (cert-file, key-file): {error}"
    return str(error) or type(error).__name__
