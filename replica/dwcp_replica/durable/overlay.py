"""Values by key, kept in order only when somebody asks for the order.

Most of what a state writes is written and committed without ever being scanned: a sorted
container would find each key's place when it comes and again when it goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sortedcontainers import SortedList


class Overlay:
    """`values` has them all; None stands for a record that goes. Written through `set` alone."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes | None] = {}
        self._order: Any = None
        self._fresh: list[bytes] = []
        """Keys that came since the order was made."""

    def set(self, key: bytes, value: bytes | None) -> None:
        """Keep a value."""
        if self._order is not None and key not in self.values:
            self._fresh.append(key)
        self.values[key] = value

    def drop(self, keys: Iterable[bytes]) -> None:
        """Forget these keys, which are there."""
        for key in keys:
            del self.values[key]
        self._order = None
        self._fresh.clear()

    def keys(self, low: bytes, high: bytes | None, *, reverse: bool) -> Iterator[bytes]:
        """The keys in [low, high), in their order."""
        if self._order is None:
            self._order = SortedList(self.values)
        elif self._fresh:
            self._order.update(self._fresh)
        self._fresh.clear()
        found: Iterator[bytes] = self._order.irange(
            low, high, inclusive=(True, False), reverse=reverse
        )
        return found
