"""The one shape that every replicated state has: an ordered map from keys to values.

A state machine keeps all that it must remember in `Records`, and gets from them what agreement
needs: a digest whose cost follows what changed, snapshots that later writes do not touch, and
(between replicas) the transfer of only what differs. Two states are equal exactly when their
digests are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from sortedcontainers import SortedDict

from dwcp_replica.store.digest import StateDigest


class Reading(Protocol):
    """What can be read of records at one moment."""

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, or None."""
        ...

    def scan(
        self, low: bytes, high: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Keys in [low, high) with their values, by ascending key (descending if `reverse`).

        high None means every key from `low` on. Nothing may be written while it is read from.
        """
        ...


class Records(Reading, Protocol):
    """The records of a state; written by one batch at a time."""

    def set(self, key: bytes, value: bytes) -> None:
        """Set a key. Keys are at most 480 bytes; values at most 16 MiB."""
        ...

    def remove(self, key: bytes) -> None:
        """Remove a key; one that is not there is fine."""
        ...

    def digest(self) -> bytes:
        """The digest of all records: 32 bytes. Its cost follows the changes since the last call."""
        ...


class MemoryRecords:
    """Records in memory: for the simulator, and for tests."""

    def __init__(self) -> None:
        self._map: Any = SortedDict()
        self._digest = StateDigest()

    def __len__(self) -> int:
        return len(self._map)

    def get(self, key: bytes) -> bytes | None:
        """See Reading."""
        value: bytes | None = self._map.get(key)
        return value

    def scan(
        self, low: bytes, high: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """See Reading."""
        keys = self._map.irange(low, high, inclusive=(True, False), reverse=reverse)
        return ((key, self._map[key]) for key in keys)

    def set(self, key: bytes, value: bytes) -> None:
        """See Records."""
        self._map[key] = value
        self._digest.update((key,), value)

    def remove(self, key: bytes) -> None:
        """See Records."""
        if self._map.pop(key, None) is not None:
            self._digest.update((key,), None)

    def digest(self) -> bytes:
        """See Records."""
        return self._digest.root()
