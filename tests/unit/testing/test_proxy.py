"""The proxy that hurts connections."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
from tests.support.deadline import DEADLINE

from postroom.testing.proxy import Proxy

Pipe = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def target() -> AsyncIterator[list[bytes]]:
    """What was heard by a server that says it again; its port is the last of the fixture's own."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1000):
                heard.append(data)
                writer.write(data)
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    heard.append(str(server.sockets[0].getsockname()[1]).encode())
    yield heard
    server.close()


@pytest.fixture
def proxy(target: list[bytes]) -> Iterator[Proxy]:
    with Proxy(("127.0.0.1", int(target.pop()))) as proxy:
        yield proxy


async def connected(proxy: Proxy) -> Pipe:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"hello")
    async with asyncio.timeout(DEADLINE):
        assert await reader.readexactly(5) == b"hello"
    return reader, writer


async def is_reset(pipe: Pipe) -> None:
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(ConnectionResetError):
            await pipe[0].read(1)
    pipe[1].close()


async def test_a_cut_resets_what_there_is(proxy: Proxy) -> None:
    pipes = [await connected(proxy), await connected(proxy)]
    proxy.cut()
    for pipe in pipes:
        await is_reset(pipe)
    (await connected(proxy))[1].close()


async def test_who_is_refused_is_reset_until_it_heals(proxy: Proxy) -> None:
    pipe = await connected(proxy)
    proxy.refuse()
    await is_reset(pipe)
    with pytest.raises(OSError):  # noqa: PT011  (while it connects, or once it has)
        await connected(proxy)
    proxy.heal()
    (await connected(proxy))[1].close()


async def test_what_is_swallowed_comes_once_it_heals(proxy: Proxy, target: list[bytes]) -> None:
    reader, writer = await connected(proxy)
    proxy.blackhole()
    writer.write(b"later")
    proxy.heal()
    async with asyncio.timeout(DEADLINE):
        assert await reader.readexactly(5) == b"later"
    assert target == [b"hello", b"later"]
    writer.close()


async def test_what_is_mute_is_told_all_the_same(proxy: Proxy, target: list[bytes]) -> None:
    reader, writer = await connected(proxy)
    proxy.mute()
    writer.write(b"told")
    async with asyncio.timeout(DEADLINE):
        while target != [b"hello", b"told"]:
            await asyncio.sleep(0.01)
    proxy.cut()
    proxy.heal()
    await is_reset((reader, writer))


async def test_a_target_that_is_not_there_is_a_connection_that_ends() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with Proxy(nobody.getsockname()) as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            async with asyncio.timeout(DEADLINE):
                assert await reader.read(1) == b""
            writer.close()


def test_an_address_that_is_taken_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="address already in use"):
        Proxy(("127.0.0.1", 1), at=taken.getsockname()).start()
