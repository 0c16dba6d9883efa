"""The events that wait for the core, in order of arrival."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import Final

from dwcp_replica.core.effects import Input
from dwcp_replica.core.epochs.wishing import Wish

HELD_MAX: Final = 1024
HELD_BYTES_MAX: Final = 32 * 1024 * 1024
"""What one member may have waiting here, at the engine and before it; then it is not read."""


class Inbox:
    """A queue with a bound that senders respect (`admits`).

    What the process itself has to say (execution, hand-over) always fits: it is bounded by
    what the core asked for.
    """

    def __init__(self) -> None:
        self.filled = asyncio.Event()
        self._events: deque[Input | Wish] = deque()
        self._weights: deque[tuple[int, int] | None] = deque()
        self._held: Counter[int] = Counter()
        self._held_bytes: Counter[int] = Counter()
        self._taken = asyncio.Event()

    def __len__(self) -> int:
        return len(self._events)

    def admits(self, member: int) -> bool:
        """True while this member may be read: its own flood fills only its own share."""
        return self._held[member] < HELD_MAX and self._held_bytes[member] < HELD_BYTES_MAX

    def hold(self, member: int, size_bytes: int) -> None:
        """Count what a member has sent, until `put` and `take` have passed it on."""
        self._held[member] += 1
        self._held_bytes[member] += size_bytes

    def drop(self, member: int, size_bytes: int) -> None:
        """What was held is not wanted after all."""
        self._held[member] -= 1
        self._held_bytes[member] -= size_bytes

    def put(self, event: Input | Wish, held: tuple[int, int] | None = None) -> None:
        """Add an event; `held` is the member and the bytes it was counted with."""
        self._events.append(event)
        self._weights.append(held)
        self.filled.set()

    def take(self, count_max: int) -> list[Input | Wish]:
        """Take the oldest events."""
        count = min(count_max, len(self._events))
        events = [self._events.popleft() for _ in range(count)]
        for held in [self._weights.popleft() for _ in range(count)]:
            if held is not None:
                self.drop(*held)
        self._taken.set()
        return events

    async def taken(self) -> None:
        """Wait until events were taken."""
        self._taken.clear()
        await self._taken.wait()
