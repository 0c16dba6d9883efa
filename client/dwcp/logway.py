"""Whether an edit of a document goes through the log, and how long that may take. Sans-IO.

Hybrid's own way, and Datacenter's when its log is in trouble: the log first, with a deadline that
follows how long it has taken lately; what it does not confirm by then is gossiped, and what comes
after is gossiped at once, until a time that doubles has passed and the log is tried again. An edit
may come by both ways; it counts once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DEADLINE_MS_MIN: Final = 100
DEADLINE_MS_MAX: Final = 1_000
TIMES: Final = 4
"""Of the usual time: so long the log may take."""
SHARE: Final = 8
"""The newest time counts an eighth, as TCP's round trips do (RFC 6298)."""
AGAIN_MS_MIN: Final = 1_000
AGAIN_MS_MAX: Final = 30_000


@dataclass(slots=True)
class LogWay:
    """What is known of the log as a way. Times are milliseconds of the caller's clock."""

    usual_ms: float = DEADLINE_MS_MAX / TIMES
    missed_in_a_row: int = 0
    _closed_until_ms: int = 0

    @property
    def deadline_ms(self) -> int:
        """How long the next edit may wait for the log."""
        return round(min(DEADLINE_MS_MAX, max(DEADLINE_MS_MIN, TIMES * self.usual_ms)))

    def is_open(self, now_ms: int) -> bool:
        """True when the log is to be tried. After a miss one edit at a time tries it."""
        return now_ms >= self._closed_until_ms

    def begun(self, now_ms: int) -> None:
        """An edit goes into the log; while it is in trouble, no other one goes beside it."""
        if self.missed_in_a_row:
            self._closed_until_ms = now_ms + self.deadline_ms

    def confirmed(self, took_ms: int) -> None:
        """The log took an edit."""
        self.usual_ms += (took_ms - self.usual_ms) / SHARE
        self.missed_in_a_row = 0
        self._closed_until_ms = 0

    def missed(self, now_ms: int) -> None:
        """The log did not take an edit in time: leave it alone for a while."""
        pause_ms = min(AGAIN_MS_MAX, AGAIN_MS_MIN << min(self.missed_in_a_row, 5))
        self.missed_in_a_row += 1
        self._closed_until_ms = now_ms + pause_ms
