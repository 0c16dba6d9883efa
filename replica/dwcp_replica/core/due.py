"""Entries that agreed time asks for: a lease ends though no client asks for anything.

The state machine says from which agreed time an entry is wanted (`Applied.due_ms`). When the
primary's clock has reached it and nothing is under way that will move agreed time anyway, it
proposes an empty entry. A backup takes an empty entry only when its own state machine wants one by
then, so that a liar can not fill the log with nothing; one that has not executed as far as the
primary gets the entry again, or fetches it. Backups time a primary out that lets time pass, as they
do for a request: after the time by which two honest clocks may differ, and a timeout. So they do
with one that keeps a SWITCH back, or the admin's orders would wait for a liar's leave.
"""

from __future__ import annotations

from typing import Final

from dwcp_replica.core.state import Core

GAP_MS: Final = 50
"""An empty entry's stamp is at least this much above its predecessor's."""


def is_due(core: Core, stamp_ms: int) -> bool:
    """True when an empty entry with this stamp may follow the log."""
    return (
        core.due_ms is not None
        and stamp_ms >= core.due_ms
        and stamp_ms >= core.log.stamp_ms + GAP_MS
    )


def wants_entry(core: Core) -> bool:
    """True when the primary should propose an empty entry now."""
    return core.due_ms is not None and core.applied == core.log.last and is_due(core, core.wall_ms)


def is_late(core: Core) -> bool:
    """True when any honest primary would have proposed by now what nobody else may propose."""
    return _switch_is_late(core) or _lease_is_late(core)


def _switch_is_late(core: Core) -> bool:
    """A SWITCH that everybody can see is due: orders and requests are repeated to all."""
    since_ms = core.switch_since_ms
    return since_ms is not None and core.now_ms - since_ms > core.timeout_ms()


def _lease_is_late(core: Core) -> bool:
    """Agreed time stands still though the state machine waits for it."""
    if core.due_ms is None or core.log.last != core.applied:
        return False
    patience_ms = core.record.parameters.max_clock_skew_ms + core.timeout_ms()
    return core.wall_ms - core.due_ms > patience_ms


def deadline_ms(core: Core) -> int | None:
    """The core time at which something falls due, if that is still to come."""
    if core.due_ms is None or core.due_ms <= core.wall_ms:
        return None
    return core.now_ms + core.due_ms - core.wall_ms
