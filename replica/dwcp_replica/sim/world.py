"""Virtual time and the network: what happens when, in an order that the seed alone decides."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

Action = Callable[[], None]


@dataclass(slots=True)
class Link:
    """How messages fare on the way: probabilities in 0..1, delays in ms."""

    delay_ms_min: int = 1
    delay_ms_max: int = 5
    drop: float = 0.0
    duplicate: float = 0.0


@dataclass(slots=True)
class World:
    """The clock, the queue of what is to come, and the state of the network."""

    random: Random
    now_ms: int = 0
    link: Link = field(default_factory=Link)
    cut: set[tuple[str, str]] = field(default_factory=set)
    slow: dict[str, int] = field(default_factory=dict)
    steps: int = 0
    _queue: list[tuple[int, int, Action]] = field(default_factory=list)
    _order: int = 0

    def at(self, time_ms: int, action: Action) -> None:
        """Do `action` at a time that is not in the past."""
        assert time_ms >= self.now_ms, "the past is over"
        self._order += 1
        heapq.heappush(self._queue, (time_ms, self._order, action))

    def after(self, delay_ms: int, action: Action) -> None:
        """Do `action` in a while."""
        self.at(self.now_ms + delay_ms, action)

    def deliver(self, source: str, target: str, action: Action) -> None:
        """Send something over a link: it may be lost, delayed, doubled or overtaken."""
        if (source, target) in self.cut or self.random.random() < self.link.drop:
            return
        copies = 2 if self.random.random() < self.link.duplicate else 1
        for _ in range(copies):
            delay = self.random.randint(self.link.delay_ms_min, self.link.delay_ms_max)
            self.after(delay + self.slow.get(source, 0), action)

    def run(self, until_ms: int, done: Callable[[], bool]) -> bool:
        """Let time pass until `done` or `until_ms`; True when done."""
        while self._queue and self._queue[0][0] <= until_ms:
            if done():
                return True
            self.now_ms, _, action = heapq.heappop(self._queue)
            self.steps += 1
            action()
        if not done():
            self.now_ms = max(self.now_ms, until_ms)
        return done()
