"""Maintenance windows: days of the week, a time at which they open, and how long, all in UTC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MINUTE_MS: Final = 60_000
DAY_MS: Final = 24 * 60 * MINUTE_MS
WEEK_MS: Final = 7 * DAY_MS
_EPOCH_WEEKDAY: Final = 3
"""1 January 1970 was a Thursday."""


@dataclass(frozen=True, slots=True)
class Opening:
    """`days` from 0 (Monday) to 6; `start_minute` of the day; at most a day long."""

    days: frozenset[int]
    start_minute: int
    duration_minutes: int

    def __post_init__(self) -> None:
        """Refuse what never opens."""
        assert self.days, "a window opens on some day"
        assert self.days <= set(range(7)), f"days of the week: {self.days}"
        assert 0 <= self.start_minute < 24 * 60, f"a minute of the day: {self.start_minute}"
        assert 0 < self.duration_minutes <= 24 * 60, f"at most a day: {self.duration_minutes}"


def opens_in_ms(opening: Opening, now_ms: int) -> int:
    """Milliseconds until the window opens, 0 while it is open; `now_ms` is Unix time."""
    week_ms = (now_ms + _EPOCH_WEEKDAY * DAY_MS) % WEEK_MS
    waits = []
    for day in opening.days:
        since_ms = (week_ms - day * DAY_MS - opening.start_minute * MINUTE_MS) % WEEK_MS
        if since_ms < opening.duration_minutes * MINUTE_MS:
            return 0
        waits.append(WEEK_MS - since_ms)
    return min(waits)
