"""Operations that can not be judged yet: a predecessor or their epoch is not known here.

They are held, not refused, and bounded for each author, so that one author can not push out what
others sent. Who may write in an epoch that is not known yet is not known either, and keys cost
nothing: all that waits for epochs has one common share. What does not fit is dropped: anti-entropy
brings it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Final

from dwcp.wire.documents import Operation

HELD_PER_AUTHOR_MAX: Final = 1024
HELD_BYTES_PER_AUTHOR_MAX: Final = 4_194_304

_OF_FUTURE_EPOCHS: Final = b"future epochs"

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
        """Hashes that held operations wait for and that are not held themselves.

        Authors take turns, so that one who made up a thousand does not hide another's from a
        message that takes only so many.
        """
        by_author: dict[bytes, list[bytes]] = {}
        for reason in sorted(name for name in self._waiting if isinstance(name, bytes)):
            if reason not in self._operations:
                first = next(iter(self._waiting[reason]))
                author = self._operations[first][0].author
                by_author.setdefault(author, []).append(reason)
        turns = zip_longest(*(by_author[author] for author in sorted(by_author)))
        return [name for turn in turns for name in turn if name is not None]

    def add(self, name: bytes, operation: Operation, reason: Reason) -> bool:
        """Hold an operation until `reason` is resolved; False when the share it takes is full."""
        assert name not in self._operations, "an operation is held once"
        share = self._shares.setdefault(_holder(operation, reason), _Share())
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
        operation, reason = self._operations.pop(name)
        holder = _holder(operation, reason)
        share = self._shares[holder]
        share.count -= 1
        share.size -= len(operation.body)
        if not share.count:
            del self._shares[holder]
        return operation


def _holder(operation: Operation, reason: Reason) -> bytes:
    """Whose share an operation takes."""
    return operation.author if isinstance(reason, bytes) else _OF_FUTURE_EPOCHS
