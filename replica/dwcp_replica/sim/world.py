"""Virtual time and the network: what happens when, in an order that the seed alone decides."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any

Action = Callable[..., None]
Pair = tuple[str, str]
"""A direction: who sends, who would hear it."""


@dataclass(slots=True)
class Link:
    """How messages fare in one direction: probabilities in 0..1, delays in ms.

    `bytes_per_ms` is the bandwidth, 0 for as much as one likes; `free_ms` is until when the
    messages before have filled the link.
    """

    delay_ms_min: int = 1
    delay_ms_max: int = 5
    drop: float = 0.0
    duplicate: float = 0.0
    bytes_per_ms: int = 0
    free_ms: float = 0.0


@dataclass(slots=True)
class World:
    """The clock, the queue of what is to come, and the state of the network."""

    random: Random
    now_ms: int = 0
    link: Link = field(default_factory=Link)
    links: dict[Pair, Link] = field(default_factory=dict)
    slow: dict[str, int] = field(default_factory=dict)
    lost_kinds: set[tuple[str, str]] = field(default_factory=set)
    narrow: bool = False
    steps: int = 0
    steps_max: int = 10**9
    _cut: dict[Pair, int] = field(default_factory=dict)
    _queue: list[tuple[int, int, Action, tuple[Any, ...]]] = field(default_factory=list)
    _order: int = 0

    # --- time --------------------------------------------------------------------------------

    def at(self, time_ms: int, action: Action, *args: object) -> None:
        """Do `action` at a time that is not in the past."""
        assert time_ms >= self.now_ms, "the past is over"
        self._order += 1
        heapq.heappush(self._queue, (time_ms, self._order, action, args))

    def after(self, delay_ms: int, action: Action, *args: object) -> None:
        """Do `action` in a while."""
        self.at(self.now_ms + delay_ms, action, *args)

    def run(self, until_ms: int, done: Callable[[], bool]) -> bool:
        """Let time pass until `done` or `until_ms`; True when done. After `steps_max` it stands."""
        queue = self._queue
        while queue and queue[0][0] <= until_ms and self.steps < self.steps_max:
            if done():
                return True
            self.now_ms, _, action, args = heapq.heappop(queue)
            self.steps += 1
            action(*args)
        if not done():
            self.now_ms = max(self.now_ms, until_ms)
            return False
        return True

    # --- the network -------------------------------------------------------------------------

    def cut(self, pairs: Iterable[Pair]) -> None:
        """Let nothing through in these directions; cuts of one direction add up."""
        for pair in pairs:
            self._cut[pair] = self._cut.get(pair, 0) + 1

    def mend(self, pairs: Iterable[Pair]) -> None:
        """Undo one cut of each of these directions."""
        for pair in pairs:
            left = self._cut.get(pair, 0) - 1
            if left > 0:
                self._cut[pair] = left
            else:
                self._cut.pop(pair, None)

    def heal(self) -> None:
        """From now on every link is good."""
        self.link = Link()
        self.links.clear()
        self.slow.clear()
        self.lost_kinds.clear()
        self._cut.clear()
        self.narrow = False

    def deliver(self, pair: Pair, size: int, action: Action, *args: object) -> None:
        """Send `size` bytes one way: lost, delayed, doubled, overtaken, or behind a full link."""
        link = self.links.get(pair, self.link)
        chance = self.random.random
        if pair in self._cut or (link.drop and chance() < link.drop):
            return
        copies = 2 if link.duplicate and chance() < link.duplicate else 1
        for _ in range(copies):
            spread = link.delay_ms_max - link.delay_ms_min + 1
            delay = link.delay_ms_min + int(chance() * spread) + self.slow.get(pair[0], 0)
            if link.bytes_per_ms:
                link.free_ms = max(link.free_ms, self.now_ms) + size / link.bytes_per_ms
                delay += int(link.free_ms) - self.now_ms
            self._order += 1
            heapq.heappush(self._queue, (self.now_ms + delay, self._order, action, args))
