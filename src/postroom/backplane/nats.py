"""The backplane on NATS: core subjects, at most once.

URLs::

    nats://[user[:password]@]host[:port][,host[:port]…]     a user alone is a token
    tls://…                                                 refuses a server without TLS

Options, after `?`: `prefix` (of every subject, `postroom`), `timeout` (seconds until a server that does not answer is
given up, 5), `connect-timeout` (seconds, 3), `ca-file`, `cert-file`, `key-file`, `nkey-file` (the seed of an nkey),
`credentials-file` (a JWT and its seed).

One connection a node carries everything. The client library's re-connection is off: it hides that messages were lost.
So are its pending queues, a task and a buffer per subscription: what comes is handed over as it is read, and a node
that does not keep up is cut off by the server, which is an interruption like any other.
"""

import asyncio
import contextlib
import itertools
import ssl
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final
from uuid import uuid4

import msgspec

from postroom.backplane.base import Subject, Traits
from postroom.backplane.names import name_of
from postroom.backplane.nats_keys import identity
from postroom.backplane.recovery import Cut, Recovery, reason_of
from postroom.engine_url import EngineUrl, Prefix, Seconds, TlsOptions, take_apart, tls_context
from postroom.errors import BackplaneUnavailable, ConfigurationError, MissingExtra
from postroom.findings import Finding

try:
    import nats.errors
    from nats.aio.client import Client
except ModuleNotFoundError as error:  # pragma: no cover
    raise MissingExtra("nats://", "nats") from error

_PORT: Final = 4222
_CLOSE_SECONDS: Final = 1.0

_TRIED: Final = [Subject(f"{kind}.rights") for kind in ("node", "topic", "user")]
"""Where it is tried whether the user may subscribe and publish."""

_HEARD: Final = [*_TRIED, Subject("all"), Subject("topics")]
"""Where it is tried whether the user may subscribe: what is published to these, nodes would hear."""

_NEVER: Final = ("authorization violation", "authentication expired", "authentication revoked")
"""What a server says to who may not come in, today or tomorrow."""


class NatsOptions(TlsOptions, frozen=True):
    """What may follow the `?` of the URL."""

    prefix: Prefix = "postroom"
    timeout: Seconds = 5.0
    connect_timeout: Seconds = 3.0
    nkey_file: str | None = None
    credentials_file: str | None = None


class Stranger(Cut):
    """The server does not let this user in."""


class _Link(Client):
    """One connection. What the library would do with a message for each subscription, `heard` does for all."""

    def __init__(self, heard: Callable[[str, bytes], None], *, prefix: str, demands_tls: bool) -> None:
        super().__init__()
        self._heard = heard
        self._demands_tls = demands_tls
        self._numbers: dict[str, int] = {}
        self._number = itertools.count(1)
        self._asked: dict[bytes, asyncio.Future[None]] = {}
        self._echo = f"{prefix}.echo.{uuid4().hex}"
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost.add_done_callback(lambda lost: lost.cancelled() or lost.exception())
        self.refusal = ""

    # ── what the library calls ────────────────────────────────────────────────────────────────────────

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        name = subject.decode()
        if name == self._echo:
            waiting = self._asked.pop(data, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(None)
            return
        try:
            self._heard(name, data)
        except Exception as error:  # the library would log it, and read no further
            self._lose(error)

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if initial_connection and self._demands_tls:
            if not (info.get("tls_required") or info.get("tls_available")):
                raise nats.errors.SecureConnWantedError
            info["tls_required"] = True  # before credentials are sent
        await super()._process_info(info, initial_connection)

    async def failed(self, error: Exception) -> None:
        """Take an error that has no caller: a refused subscription or publish, what was wrong with a server."""
        self.refusal = reason_of(error)
        if self._echo.lower() in self.refusal.lower():
            self._lose(Cut(f"the server refuses {self._echo.rpartition('.')[0]}.*: {self.refusal}"))

    def _lose(self, error: Exception) -> None:
        if not self.lost.done():
            self.lost.set_exception(error)

    # ── what we do with it ────────────────────────────────────────────────────────────────────────────

    async def open(self, url: EngineUrl[NatsOptions], context: ssl.SSLContext) -> None:
        """Connect to one of the servers. Raises Cut, Stranger, ConfigurationError, or what the library does."""
        options = url.options
        identified = await asyncio.to_thread(_identity, options)
        try:
            await self.connect(
                [f"{url.scheme}://{f'[{host}]' if ':' in host else host}:{port}" for host, port in url.hosts],
                name="postroom",
                error_cb=self.failed,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=options.connect_timeout,  # type: ignore[arg-type]
                pending_size=0,
                skip_subject_validation=True,
                tls=context,
                user=url.username if url.password is not None else None,
                password=url.password,
                token=url.username if url.password is None else None,
                **identified,
            )
        except nats.errors.Error as error:
            last = isinstance(error, nats.errors.NoServersError)  # of several: what was wrong with the last one
            reason = (self.refusal or "no server can be reached") if last else reason_of(error)
            never = any(each in reason.lower() for each in _NEVER)
            raise (Stranger if never else Cut)(reason) from error
        except OSError as error:
            raise Cut(reason_of(self._cause() or error)) from error
        self.refusal = ""
        reading = self._reading_task
        assert reading is not None
        reading.add_done_callback(lambda task: self._lose(Cut("the server closed the connection")))
        await self._send_command(f"SUB {self._echo} {next(self._number)}\r\n".encode())

    def _cause(self) -> BaseException | None:
        """Why the connection ended, where writing to it said no more than that it had: what TLS found wrong."""
        reader = getattr(self._transport, "_io_reader", None)
        return reader.exception() if reader is not None else None

    async def subscribe_all(self, names: Sequence[str]) -> None:
        """Return once they are in force. Raises Cut or BackplaneUnavailable."""
        new = [name for name in names if name not in self._numbers]
        for name in new:
            self._numbers[name] = number = next(self._number)
            await self._send_command(f"SUB {name} {number}\r\n".encode())
        await self.settle()

    async def unsubscribe_all(self, names: Sequence[str]) -> None:
        """These come no more."""
        for name in names:
            number = self._numbers.pop(name, None)
            if number is not None:
                await self._send_command(f"UNSUB {number}\r\n".encode())
        await self.settle()

    async def settle(self) -> None:
        """Return once the server has done all that was asked before.

        The library's `flush` sends its PING ahead of what waits, and breaks if it is cancelled.
        """
        token = uuid4().bytes
        answer = self._asked[token] = asyncio.get_running_loop().create_future()
        self.refusal = ""
        try:
            await self.publish(self._echo, token)
            await asyncio.wait({answer, self.lost}, return_when=asyncio.FIRST_COMPLETED)
        except nats.errors.Error as error:
            raise Cut(reason_of(error)) from error
        finally:
            self._asked.pop(token, None)
        if not answer.done():
            self.lost.result()
        if self.refusal:
            raise BackplaneUnavailable(f"the server refuses: {self.refusal}")

    async def says(self, name: str) -> None:
        """Publish nothing to `name`. Raises Cut or BackplaneUnavailable."""
        await self.publish(name, b"")
        await self.settle()

    async def discard(self) -> None:
        """Close the connection, whatever state it is in: a server that is stopped would keep us waiting."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()
        if self._reading_task is None:  # it never came to be; the library would wait for a stream that TLS replaced
            return
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.close()


def _identity(options: NatsOptions) -> dict[str, Any]:
    return identity(nkey_file=options.nkey_file, credentials_file=options.credentials_file)


class NatsBackplane:
    """`url`: see above."""

    def __init__(self, url: str) -> None:
        self._url = take_apart(url, NatsOptions, port=_PORT)
        if self._url.path:
            raise ConfigurationError(f"{self._url.scheme}://…: nothing comes after / in the URL of a NATS server")
        self.traits = Traits(max_payload_bytes=1024 * 1024, keeps_order_across_reconnect=True, survives_restart=False)
        self._context = tls_context(self._url.scheme, self._url.options)
        _identity(self._url.options)
        self._demands_tls = self._url.scheme == "tls"
        self._wanted: dict[str, Subject] = {}
        self._link: _Link | None = None
        self._recovery = Recovery(nats.errors.Error, BackplaneUnavailable)

    async def run(self, received: Callable[[Subject, bytes], None], interrupted: Callable[[], None]) -> None:
        """Receive until cancelled."""

        def heard(name: str, payload: bytes) -> None:
            subject = self._wanted.get(name)
            if subject is not None and (self._recovery.up or self._recovery.fresh):
                received(subject, payload)

        async def session(established: Callable[[], None]) -> None:
            options = self._url.options
            link = self._link = _Link(heard, prefix=options.prefix, demands_tls=self._demands_tls)
            try:
                await self._open(link)
                self.traits = msgspec.structs.replace(self.traits, max_payload_bytes=link.max_payload)
                async with asyncio.timeout(options.timeout + len(self._wanted) / 10_000):
                    await link.subscribe_all([*self._wanted])
                established()
                await self._watch(link)
            finally:
                self._recovery.down()
                self._link = None
                await link.discard()

        await self._recovery.run(session, interrupted)

    async def _open(self, link: _Link) -> None:
        try:
            await link.open(self._url, self._context)
        except (ConfigurationError, Stranger) as error:
            if self._recovery.fresh:
                raise ConfigurationError(f"the backplane refuses this user: {error}") from error
            raise Cut(str(error)) from error  # an administrator may be at work

    async def check(self) -> Sequence[Finding]:
        """See `Checks`."""
        link = _Link(lambda name, payload: None, prefix=self._url.options.prefix, demands_tls=self._demands_tls)
        try:
            async with asyncio.timeout(self._url.options.timeout):
                await self._open(link)
                return await self._rights(link)
        except (Cut, OSError, TimeoutError, nats.errors.Error) as error:
            raise BackplaneUnavailable(f"NATS does not answer: {reason_of(error)}") from error
        finally:
            await link.discard()

    async def _rights(self, link: _Link) -> Sequence[Finding]:
        permit = f"permit this user to publish and subscribe on {self._url.options.prefix}.>"
        attempts = [partial(link.subscribe_all, [self._name(subject)]) for subject in _HEARD]
        attempts += [partial(link.says, self._name(subject)) for subject in _TRIED]
        found = []
        for attempt in attempts:
            try:
                await attempt()
            except BackplaneUnavailable as error:
                found.append(Finding(f"{error}: {permit}"))
        return found

    async def _watch(self, link: _Link) -> None:
        seconds = self._url.options.timeout / 2
        lost = link.lost
        lost.add_done_callback(lambda _: self._recovery.cut())
        while not await self._recovery.until_cut(seconds):
            async with asyncio.timeout(seconds):
                with contextlib.suppress(BackplaneUnavailable):  # some other call's refusal: that one tells it
                    await link.settle()
        if lost.done():
            lost.result()
        raise Cut("it was asked for")

    async def subscribe(self, subjects: Sequence[Subject]) -> None:
        """Return once these are in force. Raises BackplaneUnavailable."""
        names = [self._name(subject) for subject in subjects]
        self._wanted.update(zip(names, subjects, strict=True))
        await self._do(lambda link: link.subscribe_all(names), waits=True)

    async def unsubscribe(self, subjects: Sequence[Subject]) -> None:
        """These are no longer wanted."""
        names = [name for subject in subjects if self._wanted.pop(name := self._name(subject), None) is not None]
        with contextlib.suppress(BackplaneUnavailable):  # then they are gone with the connection
            await self._do(lambda link: link.unsubscribe_all(names))

    async def publish(self, batch: Sequence[tuple[Subject, bytes]]) -> None:
        """Send each payload to whoever is subscribed; the server has it on return. Raises BackplaneUnavailable."""

        async def send(link: _Link) -> None:
            for subject, payload in batch:
                await link.publish(self._name(subject), payload)
            await link.settle()

        await self._do(send)

    async def reconnect(self) -> None:
        """Build the connection up again."""
        self._recovery.cut()

    async def _do(self, what: Callable[[_Link], Any], *, waits: bool = False) -> None:
        try:
            async with asyncio.timeout(self._url.options.timeout):
                if waits or self._recovery.fresh:
                    await self._recovery.wait_up()
                self._recovery.demand_up()
                link = self._link
                if link is None:
                    raise Cut("the connection was lost")
                await what(link)
        except (Cut, OSError, TimeoutError, nats.errors.Error) as error:
            raise self._recovery.unavailable(error) from error

    def _name(self, subject: Subject) -> str:
        return f"{self._url.options.prefix}.{name_of(subject)}"
