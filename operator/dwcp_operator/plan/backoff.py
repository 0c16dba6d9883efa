"""When a member that stopped is started again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DELAY_MS_MIN: Final = 1_000
DELAY_MS_MAX: Final = 60_000
EXIT_DO_NOT_RESTART: Final = 78
"""The replica's exit code (sysexits EX_CONFIG) for a data directory it can not use."""


@dataclass(frozen=True, slots=True)
class Restart:
    """Start again `delay_ms` after the member stopped; never, when delay_ms is None."""

    delay_ms: int | None


def restart(attempts: int, last_exit: int | None) -> Restart:
    """When to start a member again that ended `attempts` runs in a row before it was steady.

    `last_exit` is its exit code, negative for a signal, None when nobody saw it. The delay
    is 1 s and doubles to 60 s. Exit code 78 says that starting again can not help.
    """
    assert attempts >= 0, f"attempts are a count, got {attempts}"
    if last_exit == EXIT_DO_NOT_RESTART:
        return Restart(None)
    if attempts == 0:
        return Restart(0)
    doublings = min(attempts - 1, DELAY_MS_MAX.bit_length())
    return Restart(min(DELAY_MS_MIN << doublings, DELAY_MS_MAX))
