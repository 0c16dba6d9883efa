"""Flow control of one follower (Ongaro 2014, section 10.2.1; states as in etcd's tracker).

Probing: it is not known where the follower's log parts from mine, and one message is sent per
answer or heartbeat. Otherwise entries are sent as they come, without waiting for answers, as long
as not too many are unanswered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

UNANSWERED_MAX: Final = 64
"""Entries on their way to one follower."""


@dataclass(slots=True)
class Progress:
    """Up to `match` the follower holds my log; `next` is what it is sent next.

    `due`: while probing, that entries may go out. `behind`: it lacks so much that it must fetch by
    itself, and is sent heartbeats only. `prepared` and `final` are its own indexes
    as it last said, `beat` the last heartbeat that it answered. All of it is its own word.
    """

    next: int
    match: int = 0
    probing: bool = True
    due: bool = True
    behind: bool = False
    prepared: int = 0
    final: int = 0
    beat: int = 0

    @property
    def upto(self) -> int:
        """The highest index that may be sent now; below `next` for nothing."""
        if self.behind:
            return self.next - 1
        if not self.probing:
            return self.match + UNANSWERED_MAX
        return self.next - 1 + (UNANSWERED_MAX if self.due else 0)

    def sent(self, upto: int) -> None:
        """Entries up to `upto` are on their way."""
        if self.probing:
            self.due = False
        else:
            self.next = max(self.next, upto + 1)

    def accepted(self, index: int) -> None:
        """The follower holds my log up to `index`."""
        if index < self.match:
            return  # an old answer
        self.match = index
        self.next = index + 1 if self.probing else max(self.next, index + 1)
        self.probing = self.behind = False

    def rejected(self, next_index: int, *, behind: bool) -> None:
        """The follower does not hold what I built on: try from `next_index` on, but once only."""
        self.due = not self.probing or self.next != next_index
        self.match = min(self.match, next_index - 1)
        self.next = next_index
        self.probing = True
        self.behind = behind
