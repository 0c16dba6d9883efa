"""A bounded queue of outgoing frames that forgets the oldest when it is full."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class FrameQueue:
    """Frames for one connection, bounded by number and by bytes.

    The protocol sends again what was lost, and what is newest helps a slow reader most:
    so a full queue drops its oldest frames, never the sender's time.
    """

    def __init__(self, frames_max: int, bytes_max: int) -> None:
        self._frames: deque[bytes] = deque()
        self._frames_max = frames_max
        self._bytes_max = bytes_max
        self._bytes = 0
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, frame: bytes) -> int:
        """Add a frame; return how many older ones were dropped for it."""
        self._frames.append(frame)
        self._bytes += len(frame)
        dropped = 0
        while len(self._frames) > 1 and self._is_over():
            self._bytes -= len(self._frames.popleft())
            dropped += 1
        self._filled.set()
        return dropped

    def _is_over(self) -> bool:
        return len(self._frames) > self._frames_max or self._bytes > self._bytes_max

    def wake(self) -> None:
        """Let `get` look anew at what there is when nothing waits."""
        self._filled.set()

    async def get(self, otherwise: Callable[[], bytes | None] = lambda: None) -> bytes:
        """Wait for the oldest frame and take it; while none waits, what `otherwise` gives."""
        while not self._frames:
            if (other := otherwise()) is not None:
                return other
            self._filled.clear()
            await self._filled.wait()
        frame = self._frames.popleft()
        self._bytes -= len(frame)
        return frame
