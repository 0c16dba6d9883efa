"""Operations that can not be judged yet: a predecessor or their epoch is not known here.

They are held, not refused, and bounded for each author, so that one author can not push out what
others sent. What does not fit is dropped: anti-entropy brings it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from dwcp.wire.documents import Operation

HELD_PER_AUTHOR_MAX: Final = 1024
HELD_BYTES_PER_AUTHOR_MAX: Final = 4_194_304

Reason = bytes | int
"""The hash of a missing predecessor, or the number of an epoch not known yet."""


@dataclass(slots=True)
class _Share:
    count: int = 0
    size: int = 0


@dataclass(slots=True)
class Held:
    """Operations by hash, each waiting for one thing at a time."""

    _operations: dict[bytes, tuple[Operation, Reason]] = field(default_factory=dict)
    _waiting: dict[Reason, dict[bytes, None]] = field(default_factory=dict)
    _shares: dict[bytes, _Share] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._operations)

    def __contains__(self, name: bytes) -> bool:
        return name in self._operations

    def __iter__(self) -> Iterator[Operation]:
        return (operation for operation, _ in self._operations.values())

    def missing(self) -> list[bytes]:
        """Hashes that held operations wait for and that are not held themselves, sorted."""
        wanted = (reason for reason in self._waiting if isinstance(reason, bytes))
        return sorted(name for name in wanted if name not in self._operations)

    def add(self, name: bytes, operation: Operation, reason: Reason) -> bool:
        """Hold an operation until `reason` is resolved; False when its author's share is full."""
        assert name not in self._operations, "an operation is held once"
        share = self._shares.setdefault(operation.author, _Share())
        size = len(operation.body)
        full = share.count >= HELD_PER_AUTHOR_MAX or share.size + size > HELD_BYTES_PER_AUTHOR_MAX
        if full:
            return False
        share.count += 1
        share.size += size
        self._operations[name] = (operation, reason)
        self._waiting.setdefault(reason, {})[name] = None
        return True

    def release(self, reason: Reason) -> list[tuple[bytes, Operation]]:
        """Take out what waited for this, in the order of arrival."""
        names = self._waiting.pop(reason, {})
        return [(name, self._take(name)) for name in names]

    def epochs(self) -> list[int]:
        """The epochs that held operations wait for, sorted."""
        return sorted(reason for reason in self._waiting if isinstance(reason, int))

    def _take(self, name: bytes) -> Operation:
        operation, _ = self._operations.pop(name)
        share = self._shares[operation.author]
        share.count -= 1
        share.size -= len(operation.body)
        if not share.count:
            del self._shares[operation.author]
        return operation
