"""Frames of one tick leave in one write; a client that does not read is cut, never the loop."""

import asyncio

from postroom.outbox import Flusher, Outbox
from postroom.transport.base import Framing


class FakePipe:
    """A transport that remembers what was written, and can be slow."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.slow = False
        self.buffered_bytes = 0

    @property
    def framing(self) -> Framing:
        return lambda payload: payload

    def write(self, data: bytes) -> None:
        self.written.append(data)
        if self.slow:
            self.buffered_bytes += len(data)

    def probe(self, token: bytes) -> bool:
        return False

    def close(self, code: int, reason: str = "") -> None: ...

    def abort(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Cut:
    """Counts how often a client was cut."""

    times = 0

    def __call__(self) -> None:
        self.times += 1


async def turn() -> None:
    """Let the loop's tick end."""
    for _ in range(3):
        await asyncio.sleep(0)


def outbox(pipe: FakePipe, cut: Cut, max_bytes: int = 1000) -> Outbox:
    return Outbox(pipe, Flusher(asyncio.get_running_loop()), max_bytes=max_bytes, overflowed=cut)


async def test_the_frames_of_a_tick_leave_in_one_write() -> None:
    pipe, cut = FakePipe(), Cut()
    box = outbox(pipe, cut)
    for frame in (b"a", b"b", b"c"):
        box.put(frame)
    assert pipe.written == []
    await turn()
    assert pipe.written == [b"abc"]


async def test_a_client_that_does_not_read_is_cut_once() -> None:
    pipe, cut = FakePipe(), Cut()
    pipe.slow = True
    box = outbox(pipe, cut)
    for _ in range(50):
        box.put(b"x" * 100)
        await turn()
    assert cut.times == 1
    assert sum(map(len, pipe.written)) <= 1000


async def test_a_full_transport_is_written_to_again_once_it_has_drained() -> None:
    pipe, cut = FakePipe(), Cut()
    pipe.slow = True
    box = outbox(pipe, cut)
    box.put(b"x" * 400)
    await turn()
    box.put(b"later")
    await turn()
    assert pipe.written == [b"x" * 400]
    pipe.slow, pipe.buffered_bytes = False, 0
    box.drained()
    assert pipe.written[1:] == [b"later"]


async def test_closing_writes_what_waits_and_drops_the_rest() -> None:
    pipe, cut = FakePipe(), Cut()
    box = outbox(pipe, cut)
    box.put(b"goodbye")
    box.close()
    box.put(b"too late")
    await turn()
    assert pipe.written == [b"goodbye"]


async def test_flushed_is_called_after_each_write() -> None:
    pipe, cut = FakePipe(), Cut()
    box = outbox(pipe, cut)
    seen: list[int] = []
    box.flushed = lambda: seen.append(len(pipe.written))
    box.put(b"a")
    await turn()
    box.put(b"b")
    await turn()
    assert seen == [1, 2]


async def test_a_large_fan_out_is_flushed_in_parts_and_completely() -> None:
    cut = Cut()
    flusher = Flusher(asyncio.get_running_loop())
    pipes = [FakePipe() for _ in range(4500)]
    for pipe in pipes:
        Outbox(pipe, flusher, max_bytes=1000, overflowed=cut).put(b"hello")
    await turn()
    await turn()
    assert all(pipe.written == [b"hello"] for pipe in pipes)
