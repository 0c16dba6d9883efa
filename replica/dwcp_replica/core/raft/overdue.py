"""When a leader is given up although it is heard: what waits too long, or a proof against it."""

from __future__ import annotations

from dwcp_replica.core import due
from dwcp_replica.core.effects import ViewChangeReason
from dwcp_replica.core.state import Core


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
