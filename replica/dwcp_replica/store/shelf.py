"""The state as the engine sees it: its own, and as it was at the last checkpoints, for others.

Implements core.state_tree.StateTree. A view that is kept costs disk (pages that can not be used
again), so only the newest few are: a member that fetches more slowly than the cluster makes
checkpoints aims at a newer one, and what it has by then is not fetched again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dwcp_replica.store.records import StateRecords, View

VIEWS_MAX: Final = 4


class Shelf:
    """Access to the records of a state and to views of them by checkpoint index."""

    def __init__(self, records: StateRecords) -> None:
        self._records = records
        self._views: dict[int, View] = {}

    def keep(self, index: int) -> None:
        """The state that was just committed stands at this checkpoint: others may fetch it."""
        if (same := self._views.pop(index, None)) is not None:
            same.close()
        self._views[index] = self._records.view()
        for old in sorted(self._views)[:-VIEWS_MAX]:
            self._views.pop(old).close()

    def drop(self) -> None:
        """Show nothing any more."""
        while self._views:
            self._views.popitem()[1].close()

    def node(self, place: bytes) -> bytes | None:
        """See StateTree."""
        return self._records.node(place)

    def get(self, key: bytes) -> bytes | None:
        """See StateTree."""
        return self._records.get(key)

    def write(self, changes: Mapping[bytes, bytes | None]) -> None:
        """See StateTree."""
        assert self._records.target is not None, "a state is changed by entries or by a transfer"
        for key, value in changes.items():
            if value is None:
                self._records.remove(key)
            else:
                self._records.set(key, value)
        self._records.digest()

    def save(self) -> None:
        """See StateTree. A full disk costs only this: progress is kept in memory meanwhile."""
        self._records.try_commit()

    def holds(self, index: int) -> bool:
        """See StateTree."""
        view = self._views.get(index)
        return view is not None and view.node(b"") is not None

    def shown_node(self, index: int, place: bytes) -> bytes | None:
        """See StateTree."""
        return self._views[index].node(place)

    def shown_value(self, index: int, key: bytes) -> bytes | None:
        """See StateTree."""
        return self._views[index].get(key)
