"""A look at members is no photograph: what only one look saw is looked at again before it is told.

Members are asked one beside the other. While a primary hands over, some have entered the new view
and others enter it a moment later: a quorum that is never lost then seems to be.
"""

from __future__ import annotations

from typing import Final

from dwcp_operator.resources import ClusterStatus

LOOKS: Final = 3
"""A lost quorum is told when so many looks in a row have found it lost."""


class Steadiness:
    """Of one cluster: how often in a row a quorum that was there has not been found."""

    def __init__(self) -> None:
        self._misses = 0

    def doubts(self, before: ClusterStatus | None, after: ClusterStatus) -> bool:
        """True when `after` says that a quorum was lost and too few looks have seen it."""
        was = None if before is None else _available(before)
        now = _available(after)
        lost = was == ("True", "QuorumVotes") and now == ("False", "QuorumLost")
        self._misses = self._misses + 1 if lost else 0
        return lost and self._misses < LOOKS


def _available(status: ClusterStatus) -> tuple[str, str] | None:
    found = next((c for c in status.conditions if c.type == "Available"), None)
    return None if found is None else (found.status, found.reason)
