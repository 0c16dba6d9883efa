"""The live keys in memory, so that many of them are counted without being looked at.

Not state: made from the records when a large count is first asked for, and kept up to date from
then on. What an operation answers, and what it is said to have cost, is the same without it.
"""

from __future__ import annotations

from typing import Any

from sortedcontainers import SortedList

from dwcp_replica.store.layout import LIVE, after
from dwcp_replica.store.records import Reading


class KeyIndex:
    """The record keys of live keys, in order; what a transaction changed can be taken back."""

    def __init__(self, records: Reading) -> None:
        self._records = records
        self._keys: Any = None
        self._changes: list[tuple[bytes, bool]] = []
        self._is_new = False

    def count(self, low: bytes, high: bytes) -> int:
        """How many keys there are in [low, high)."""
        if self._keys is None:
            self._keys = SortedList(key for key, _ in self._records.scan(LIVE, after(LIVE)))
            self._is_new = True
        found: int = self._keys.bisect_left(high) - self._keys.bisect_left(low)
        return found

    def added(self, key: bytes) -> None:
        """A key came to be."""
        if self._keys is not None:
            self._keys.add(key)
            self._changes.append((key, True))

    def removed(self, key: bytes) -> None:
        """A key is gone."""
        if self._keys is not None:
            self._keys.remove(key)
            self._changes.append((key, False))

    def keep(self) -> None:
        """Let the changes since the last call stand."""
        self._changes.clear()
        self._is_new = False

    def undo(self) -> None:
        """Take back the changes since `keep`; what was made since then may hold more of them."""
        if self._is_new:
            self._keys = None
            self._changes.clear()
        for key, was_added in reversed(self._changes):
            if was_added:
                self._keys.remove(key)
            else:
                self._keys.add(key)
        self._changes.clear()
