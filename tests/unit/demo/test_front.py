"""The front in Python: each connection to the next node, one that is down passed over, bytes both ways."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.server import free_port

from postroom.demo.front import Front


@asynccontextmanager
async def node(name: bytes) -> AsyncIterator[int]:
    """Says its name, then echoes; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(name)
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def ask(port: int, said: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(said)
        answer = await reader.readexactly(1 + len(said))
        writer.write_eof()
        assert await reader.read() == b"", "the end of one is that of both"
        return answer
    finally:
        writer.close()
        await writer.wait_closed()


async def test_connections_go_to_the_nodes_in_turn() -> None:
    async with node(b"1") as first, node(b"2") as second:
        front = await Front([first, second]).serve("127.0.0.1", 0)
        async with front:
            port = front.sockets[0].getsockname()[1]
            assert [await ask(port, b"hello") for _ in range(4)] == [b"1hello", b"2hello", b"1hello", b"2hello"]


async def test_a_node_that_is_down_is_passed_over() -> None:
    async with node(b"2") as second:
        front = await Front([free_port(), second]).serve("127.0.0.1", 0)
        async with front:
            port = front.sockets[0].getsockname()[1]
            assert [await ask(port, b"x") for _ in range(3)] == [b"2x"] * 3


async def test_with_no_node_the_client_is_sent_away() -> None:
    front = await Front([free_port()]).serve("127.0.0.1", 0)
    async with front:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.sockets[0].getsockname()[1])
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
