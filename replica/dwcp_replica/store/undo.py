"""Records that can take back what was written since a mark: all of a transaction, or nothing."""

from __future__ import annotations

from collections.abc import Iterator

from dwcp_replica.store.records import Records


class UndoRecords:
    """Passes on to `records`; between `mark` and `keep` or `undo` it remembers what was there."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self._before: dict[bytes, bytes | None] | None = None
        self.get = records.get

    def scan(
        self, low: bytes, high: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """See Reading; an interval turned round is empty."""
        if high is not None and high <= low:
            return iter(())
        return self.records.scan(low, high, reverse=reverse)

    def set(self, key: bytes, value: bytes) -> None:
        """See Records."""
        if self._before is not None and key not in self._before:
            self._before[key] = self.get(key)
        self.records.set(key, value)

    def remove(self, key: bytes) -> None:
        """See Records."""
        if self._before is not None and key not in self._before:
            self._before[key] = self.get(key)
        self.records.remove(key)

    def mark(self) -> None:
        """Remember from here on."""
        assert self._before is None, "marks do not nest"
        self._before = {}

    def keep(self) -> None:
        """Let what was written since the mark stand."""
        assert self._before is not None, "nothing was marked"
        self._before = None

    def undo(self) -> None:
        """Take back what was written since the mark."""
        assert self._before is not None, "nothing was marked"
        before, self._before = self._before, None
        for key, value in before.items():
            if value is None:
                self.records.remove(key)
            else:
                self.records.set(key, value)
