"""When the next backup is due: from what the resource asks and what its status remembers."""

from __future__ import annotations

from typing import Final

RETRY_MS_MIN: Final = 10_000
RETRY_MS_MAX: Final = 600_000


def due_in_ms(every_ms: int | None, taken: int, failures: int, since_ms: int | None) -> int | None:
    """Milliseconds until an attempt is due, 0 when it is now; None when none will be.

    `since_ms` is the time since the last attempt ended, None before the first. A failed attempt
    is made again after 10 s, doubling to 10 minutes, but never later than the next would be.
    """
    if since_ms is None:
        return 0
    if failures:
        wait_ms = min(RETRY_MS_MIN << min(failures - 1, 16), RETRY_MS_MAX)
        if every_ms is not None:
            wait_ms = min(wait_ms, every_ms)
    elif every_ms is not None:
        wait_ms = every_ms
    else:
        return None if taken else 0
    return max(0, wait_ms - since_ms)
