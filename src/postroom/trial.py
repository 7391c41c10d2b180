"""Trying the engines that settings name, before a node is built on them: `postroom check-config --connect`."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final
from uuid import uuid4

from msgspec import Struct

from postroom.backplane.base import Backplane, Subject, open_backplane
from postroom.backplane.recovery import reason_of
from postroom.config import EMBEDDED, Settings
from postroom.errors import PostroomError
from postroom.findings import Checks, Finding, advice
from postroom.logs import without_passwords
from postroom.node import backplane_url
from postroom.store import directory_of, open_store
from postroom.store.base import Store

_SECONDS: Final = 15.0
"""How long one engine may take."""

_SLOW_MS: Final = 250.0


class Report(Struct, frozen=True):
    """What came of trying one engine: its role, its URL, and what was found."""

    role: str
    url: str
    findings: Sequence[Finding]

    @property
    def well(self) -> bool:
        """Whether a node would work with it."""
        return not any(finding.grave for finding in self.findings)

    @property
    def lines(self) -> Sequence[str]:
        """The same for people."""
        found = [f"  {'error' if finding.grave else 'advice'}: {finding.text}" for finding in self.findings]
        return [f"{self.role} {without_passwords(self.url)}: {'ok' if self.well else 'not usable'}", *found]


async def try_all(settings: Settings) -> list[Report]:
    """Try the store, the directory and the backplane of `settings`, one after the other.

    What `postroom serve` starts for its workers is not tried.
    """
    store, carrier = settings.store, backplane_url(settings)
    reports = []
    if not store.startswith(EMBEDDED):
        reports.append(await try_store(store))
    if carrier and not carrier.startswith(EMBEDDED):
        if reports and reports[0].well:  # it is the same server
            reports.append(await _report("directory", store, lambda: _try_directory(store)))
        reports.append(await try_backplane(carrier))
    return reports


async def try_store(url: str) -> Report:
    """Try the store that `url` names."""
    return await _report("store", url, lambda: _try_store(open_store(url)))


async def try_backplane(url: str) -> Report:
    """Try the backplane that `url` names."""
    return await _report("backplane", url, lambda: _try_backplane(url))


async def _report(role: str, url: str, attempt: Callable[[], Awaitable[Sequence[Finding]]]) -> Report:
    try:
        async with asyncio.timeout(_SECONDS):
            return Report(role, url, await attempt())
    except TimeoutError:
        return Report(role, url, [Finding(f"no answer within {_SECONDS:.0f} seconds")])
    except PostroomError as error:
        return Report(role, url, [Finding(str(error))])


async def _try_store(store: Store) -> Sequence[Finding]:
    if isinstance(store, Checks):
        return await store.check()
    async with store:
        return []


async def _try_directory(url: str) -> Sequence[Finding]:
    directory_of(open_store(url), url)
    return []


async def _try_backplane(url: str) -> Sequence[Finding]:
    backplane = open_backplane(url)
    found = [*await backplane.check()] if isinstance(backplane, Checks) else []
    if any(finding.grave or finding.last for finding in found):
        return found
    heard = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(backplane.run(lambda subject, payload: heard.set(), lambda: None))
            try:
                found += await _hear_oneself(backplane, heard)
            finally:
                running.cancel()
    except ExceptionGroup as group:
        found.append(Finding(reason_of(group)))
    return found


async def _hear_oneself(backplane: Backplane, heard: asyncio.Event) -> Sequence[Finding]:
    subject = Subject(f"node.check-{uuid4().hex}")
    await backplane.subscribe([subject])
    started = time.perf_counter()
    await backplane.publish([(subject, b"check")])
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_SECONDS / 3):
            await heard.wait()
        took = (time.perf_counter() - started) * 1000
        return [advice(f"what is published comes back in {took:.0f} ms: slow")] if took > _SLOW_MS else []
    return [Finding("what is published does not come back: may this user subscribe, and is it one server?")]
