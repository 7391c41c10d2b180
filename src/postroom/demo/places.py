"""Free ports, and whether somebody answers there."""

import asyncio
import contextlib
import random
import socket
from typing import Final

_PORTS: Final = range(20_000, 32_768)
"""Below those that the kernel gives to outgoing connections: one who asks whether a server is up already, at a port of
that kind, may be given the port itself, and talk to nobody but himself."""


def free_ports(count: int) -> list[int]:
    """So many ports of 127.0.0.1 that nobody uses."""
    found: list[int] = []
    while len(found) < count:
        port = random.choice(_PORTS)
        with contextlib.suppress(OSError):
            check_free("127.0.0.1", port)
            if port not in found:
                found.append(port)
    return found


def check_free(host: str, port: int) -> None:
    """Raise OSError where one cannot listen."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise OSError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error


async def answers(port: int, question: bytes, expected: bytes, *, seconds: float = 1.0) -> bool:
    """Whether what listens at `port` of 127.0.0.1 begins its answer to `question` with what is `expected`."""
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(question)
                return await reader.readexactly(len(expected)) == expected
            finally:
                writer.close()
    except (OSError, EOFError):  # TimeoutError too
        return False
