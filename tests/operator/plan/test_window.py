from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dwcp_operator.plan.window import DAY_MS, WEEK_MS, Opening, opens_in_ms

NIGHT = Opening(days=frozenset({5, 6}), start_minute=2 * 60, duration_minutes=120)
LATE = Opening(days=frozenset({6}), start_minute=23 * 60, duration_minutes=180)
DAILY = Opening(days=frozenset(range(7)), start_minute=0, duration_minutes=1440)


def at(text: str) -> int:
    return int(datetime.fromisoformat(f"{text}+00:00").timestamp() * 1000)


@pytest.mark.parametrize(
    ("opening", "now", "hours"),
    [
        (NIGHT, "2026-11-21T02:00:00", 0),  # a Saturday
        (NIGHT, "2026-11-21T03:59:59", 0),
        (NIGHT, "2026-11-21T04:00:00", 22),
        (NIGHT, "2026-11-22T02:30:00", 0),
        (NIGHT, "2026-11-22T04:00:00", 5 * 24 + 22),
        (NIGHT, "2026-11-20T02:00:00", 24),
        (LATE, "2026-11-22T23:30:00", 0),
        (LATE, "2026-11-23T01:59:59", 0),  # over midnight, and over the end of the week
        (LATE, "2026-11-23T02:00:00", 6 * 24 + 21),
        (DAILY, "2026-11-23T02:00:00", 0),
    ],
)
def test_windows(opening: Opening, now: str, hours: float) -> None:
    assert opens_in_ms(opening, at(now)) == hours * 3_600_000


def test_against_a_clock_that_is_walked_minute_by_minute() -> None:
    """The arithmetic is that of the calendar: a plain walk finds the same minutes open."""
    moment = datetime(2026, 2, 27, tzinfo=UTC)
    for _ in range(0, 9 * 24 * 60, 7):
        moment += timedelta(minutes=7)
        opened = [
            start
            for back in (0, 1)
            if (start := (moment - timedelta(days=back)).replace(hour=2, minute=0)).weekday()
            in NIGHT.days
            and start <= moment < start + timedelta(hours=2)
        ]
        assert (opens_in_ms(NIGHT, int(moment.timestamp() * 1000)) == 0) == bool(opened)


def test_it_opens_when_it_says() -> None:
    for hour in range(0, 24 * 7, 5):
        now = at("2026-11-16T00:30:00") + hour * 3_600_000
        wait_ms = opens_in_ms(NIGHT, now)
        assert 0 <= wait_ms < WEEK_MS
        assert opens_in_ms(NIGHT, now + wait_ms) == 0
        if wait_ms:
            assert opens_in_ms(NIGHT, now + wait_ms - 1) == 1


@pytest.mark.parametrize(
    "bad", [(frozenset(), 0, 1), ({7}, 0, 1), ({1}, 1440, 1), ({1}, 0, 0), ({1}, 0, 1441)]
)
def test_what_never_opens_is_refused(bad: tuple[frozenset[int], int, int]) -> None:
    with pytest.raises(AssertionError):
        Opening(frozenset(bad[0]), bad[1], bad[2])
    assert DAY_MS * 7 == WEEK_MS
