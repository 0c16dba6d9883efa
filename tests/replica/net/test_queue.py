from __future__ import annotations

import asyncio

from dwcp_replica.net.queue import FrameQueue


def test_a_full_queue_drops_the_oldest() -> None:
    async def run() -> None:
        queue = FrameQueue(frames_max=2, bytes_max=100)
        assert [queue.put(b"a"), queue.put(b"b"), queue.put(b"c")] == [0, 0, 1]
        assert [await queue.get(), await queue.get()] == [b"b", b"c"]
        assert len(queue) == 0

    asyncio.run(run())


def test_bytes_count_too_and_the_newest_always_fits() -> None:
    async def run() -> None:
        queue = FrameQueue(frames_max=100, bytes_max=10)
        assert queue.put(b"123456") == 0
        assert queue.put(b"12345") == 1
        assert queue.put(b"x" * 50) == 1
        assert await queue.get() == b"x" * 50
        assert queue.put(b"1234567890") == 0

    asyncio.run(run())


def test_get_waits_for_a_frame() -> None:
    async def run() -> None:
        queue = FrameQueue(frames_max=2, bytes_max=100)
        waiting = asyncio.create_task(queue.get())
        await asyncio.sleep(0)
        assert not waiting.done()
        queue.put(b"late")
        assert await asyncio.wait_for(waiting, 1) == b"late"

    asyncio.run(run())
