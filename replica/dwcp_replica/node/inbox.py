"""The events that wait for the core, in order of arrival."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from dwcp_replica.core.effects import Input

BACKLOG_MAX: Final = 8192
"""Events beyond which peers are not read and clients are told to come later."""


class Inbox:
    """A queue with a bound that senders respect (`full`, `room`).

    What the process itself has to say (execution, hand-over) always fits: it is bounded by
    what the core asked for.
    """

    def __init__(self) -> None:
        self.filled = asyncio.Event()
        self._events: deque[Input] = deque()
        self._taken = asyncio.Event()

    def __len__(self) -> int:
        return len(self._events)

    @property
    def full(self) -> bool:
        """True while nothing more should come from outside."""
        return len(self._events) >= BACKLOG_MAX

    def put(self, event: Input) -> None:
        """Add an event."""
        self._events.append(event)
        self.filled.set()

    def take(self, count_max: int) -> list[Input]:
        """Take the oldest events."""
        count = min(count_max, len(self._events))
        events = [self._events.popleft() for _ in range(count)]
        self._taken.set()
        return events

    async def taken(self) -> None:
        """Wait until events were taken."""
        self._taken.clear()
        await self._taken.wait()
