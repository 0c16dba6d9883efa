"""The state as the engine sees it: its own, and the newest stable ones, for others.

Implements core.state_tree.StateTree. What is on disk is the state at the newest stable checkpoint
that was executed here. A view of an older one that is kept costs disk (pages that can not be used
again), so only a few are: a member that fetches more slowly than the cluster makes checkpoints
aims at a newer one, and what it has by then is not fetched again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dwcp_replica.store.records import Target, View
from dwcp_replica.store.store import Store

VIEWS_MAX: Final = 4


class Shelf:
    """Commits a store's state when its checkpoint is stable, and shows it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._records = store.held
        self._views: dict[int, View] = {}
        self._sealed: list[int] = []
        self._stable = 0
        self.saved = store.applied_index
        """What a restart finds."""
        if store.target is None:
            self._keep(self.saved)

    @property
    def newest(self) -> int:
        """The newest checkpoint that was made here, stable or not."""
        return self._sealed[-1] if self._sealed else self.saved

    # --- what the shell does ---------------------------------------------------------------------

    def checkpoint(self) -> bytes:
        """The store stands at a checkpoint: its digest."""
        state = self._store.seal()
        self._sealed.append(self._store.applied_index)
        self._commit()
        return state

    def stable(self, index: int) -> None:
        """A quorum has certified the state at this checkpoint, executed here or not yet."""
        self._stable = max(self._stable, index)
        self._commit()

    def begin_transfer(self, target: Target) -> None:
        """See Store. What is shown to others stays."""
        self._sealed.clear()
        self._store.begin_transfer(target)

    def end_transfer(self) -> bytes:
        """See Store; the state's digest."""
        self._store.end_transfer()
        self.saved = self._store.applied_index
        self._keep(self.saved)
        return self._store.digest()

    def view(self) -> View:
        """The state at `saved`, for a backup: to be closed soon, and closed early where it must."""
        return self._records.view()

    def drop(self) -> None:
        """Show nothing any more."""
        while self._views:
            self._views.popitem()[1].close()

    def _commit(self) -> None:
        due = [index for index in self._sealed if index <= self._stable]
        if due and self._records.commit(due[-1]):
            self._sealed = self._sealed[len(due) :]
            self.saved = due[-1]
            self._keep(self.saved)

    def _keep(self, index: int) -> None:
        if (same := self._views.pop(index, None)) is not None:
            same.close()
        self._views[index] = self._records.view()
        for old in sorted(self._views)[:-VIEWS_MAX]:
            self._views.pop(old).close()

    # --- core.state_tree.StateTree ---------------------------------------------------------------

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
        self._records.commit()

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
