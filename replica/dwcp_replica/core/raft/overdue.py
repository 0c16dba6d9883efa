"""When a leader is given up although it is heard: what waits too long, or a proof against it."""

from __future__ import annotations

from typing import Final

from dwcp_replica.core import due
from dwcp_replica.core.effects import PanicReason, ViewChangeReason
from dwcp_replica.core.state import Core

PANIC_TIMEOUTS: Final = 2
"""Request time-outs after which another leader has not helped either."""
PANIC_ELECTIONS: Final = 4
"""Failed elections in a row after which a replica wants PBFT."""


def despair(core: Core) -> PanicReason | None:
    """Why Raft should give way to PBFT (epochs.md, Liveness); None while it gets on."""
    if core.attempts > PANIC_ELECTIONS:
        return PanicReason.ELECTIONS_FAILED
    return PanicReason.STARVED if starves(core) else None


def starves(core: Core) -> bool:
    """True when something waits although the first time-out has elected another leader.

    The wait doubles with every election that failed.
    """
    patience_ms = PANIC_TIMEOUTS * core.timeout_ms()
    waiting = [] if (oldest := core.pool.oldest_ms()) is None else [oldest]
    if core.log.last > core.final:
        waiting.append(core.progress_ms)
    return any(core.now_ms - max(since, core.raft.begun_ms) > patience_ms for since in waiting)


def reason(core: Core) -> ViewChangeReason | None:
    """Why the present leader should be given up; None while it does its work.

    Raft alone would follow a leader for ever that is heard and orders nothing; among liars the
    client's request is the measure, as in PBFT, with a time that doubles.
    """
    if core.primary in core.evidence:
        return ViewChangeReason.EQUIVOCATION
    too_old_ms = core.now_ms - core.timeout_ms()
    if core.primary == core.me or core.view_since_ms >= too_old_ms:
        return None
    oldest = core.pool.oldest_ms()
    if oldest is not None and oldest < too_old_ms:
        return ViewChangeReason.TIMEOUT
    if core.log.last > core.final and core.progress_ms < too_old_ms:
        return ViewChangeReason.TIMEOUT
    return ViewChangeReason.TIMEOUT if due.is_late(core) else None
