"""A PBFT replica after a crash: its view, and a view that it must not lead on.

A replica goes on in the view that it had entered, or goes on asking for the one it had asked
for; but it never goes on leading a view in which it had proposed (epochs.md, Restart).
"""

from __future__ import annotations

from dwcp.wire.peer import Election, NewView
from dwcp_replica.core.effects import ViewChangeReason
from dwcp_replica.core.pbft import view_change
from dwcp_replica.core.state import Core


def resume(core: Core, entered: int) -> None:
    """The view that I had entered, or the later one that I had asked for."""
    core.view = entered
    if core.my_change is not None and core.my_change.view > entered:
        core.view = core.my_change.view
        core.active = False
        core.changes[core.me] = core.my_change
    elif entered > 1 and isinstance(core.entered_election, Election):
        first = core.log.slot(core.view_start)
        if first is not None and first.header.term == entered:
            core.new_view = NewView(core.entered_election, first.entry)
        elif core.new_view is None:
            core.active = False  # the crash came between the certificate and the first entry
    core.yield_to_log()


def begin(core: Core) -> None:
    """Give up a view that I had led."""
    led_before = core.primary == core.me and core.log.tip.term == core.view
    if led_before and core.active and core.mute is None:
        view_change.start(core, core.view + 1, ViewChangeReason.RESTARTED)
