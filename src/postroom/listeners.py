"""Where a server listens: its port or Unix socket, TLS, and STOMP over plain TCP."""

import asyncio
import contextlib
import socket
import ssl
import sys
from asyncio import AbstractServer
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from postroom import stomp
from postroom.config import Settings, Tls
from postroom.errors import ConfigurationError
from postroom.node import Node
from postroom.transport.tcp import tcp_listener

_log = structlog.get_logger("postroom.listeners")

BACKLOG: Final = 4096


class Doors(NamedTuple):
    """Bound sockets: that of HTTP and WebSockets, and that of STOMP over TCP, where it is served."""

    web: socket.socket
    stomp: socket.socket | None

    def close(self) -> None:
        """Close both in this process."""
        for each in self:
            if each is not None:
                each.close()


def open_doors(settings: Settings) -> Doors:
    """Bind what `settings` name. Raises OSError with a sentence for the operator."""
    web = bind(settings.host, settings.port) if settings.unix_socket is None else bind_unix(settings.unix_socket)
    try:
        return Doors(web, bind(settings.host, settings.stomp_port) if settings.stomp_port is not None else None)
    except BaseException:
        web.close()
        raise


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to `host` and `port` (0: any). Raises OSError with a sentence for the operator."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    bound.set_inheritable(False)
    return bound


def bind_unix(path: str) -> socket.socket:
    """A socket bound to `path`, to which everybody may connect. Raises OSError with a sentence for the operator."""
    _make_way(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(path)
        Path(path).chmod(0o666)
    except OSError as error:
        bound.close()
        raise OSError(f"cannot listen on {path}: {error.strerror or error}") from error
    return bound


def _make_way(path: str) -> None:
    # One that a dead server left is removed.
    file = Path(path)
    if sys.platform == "win32":
        raise ConfigurationError("unix-socket: this system has none that asyncio can serve")
    if not file.is_socket():
        if file.exists():
            raise OSError(f"cannot listen on {path}: there is a file that is no socket")
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            file.unlink(missing_ok=True)
            return
    raise OSError(f"cannot listen on {path}: somebody else does")


def tls_context(tls: Tls) -> ssl.SSLContext:
    """TLS 1.2 or newer with the certificate that `tls` names. Raises ConfigurationError."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for name, file in (("certificate", tls.certificate), ("key", tls.key)):
        if not Path(file).is_file():
            raise ConfigurationError(f"tls: {name} {file} is no file")
    try:
        context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"tls: {tls.certificate} and {tls.key} are no certificate with its key: {error}"
        ) from error
    return context


@contextlib.asynccontextmanager
async def stomp_listener(
    settings: Settings, node: Node, door: socket.socket | None
) -> AsyncIterator[Sequence[AbstractServer]]:
    """While it is open, STOMP is spoken over TCP at `door`, with TLS where the settings have it.

    Yields what to close for nobody new to come in.
    """
    if door is None:
        yield ()
        return
    server = await asyncio.get_running_loop().create_server(
        tcp_listener(node.endpoint(), _refusal),
        sock=door,
        ssl=tls_context(settings.tls) if settings.tls is not None else None,
        backlog=BACKLOG,
    )
    name, port = server.sockets[0].getsockname()[:2]
    _log.info("serving STOMP over TCP", address=f"{name}:{port}", tls=settings.tls is not None)
    try:
        yield (server,)
    finally:
        server.close()


def _refusal(reason: str) -> bytes:
    return stomp.Connection(limits=stomp.Limits()).error(reason)
