"""Time in the PBFT driver: heartbeats, retransmission, and when a primary is given up.

Timers double with every view change that brought no progress (Castro and Liskov 1999, §4.5.2).
Two rules of epochs.md matter for liveness: a view's timer starts only at its NEW-VIEW or when a
quorum asks for it or more, and the last VIEW-CHANGE is resent for ever.
"""

from __future__ import annotations

from dwcp.wire.peer import Header, PrePrepare, Status
from dwcp_replica.core import catchup, due, election_book, peers
from dwcp_replica.core.effects import ViewChangeReason
from dwcp_replica.core.pbft import view_change
from dwcp_replica.core.state import Core

READMIT_TIMEOUTS = 4
"""How many timeouts a primary waits before it lets a lone doubter in; doubled each time."""
READMIT_DOUBLINGS_MAX = 10
NEW_VIEW_COST_BYTES = 512 * 1024
"""What checking a NEW-VIEW costs its receiver, counted as if it were sent."""
FORGIVEN_AFTER_MS = 24 * 3600 * 1000


def on_tick(core: Core) -> None:
    """Act on what has become due."""
    if core.now_ms >= core.heartbeat_ms:
        core.heartbeat_ms = core.now_ms + peers.heartbeat_every_ms(core)
        heartbeat(core)
    if core.mute is not None:
        return
    if core.active:
        reason = overdue(core)
        if reason is not None:
            view_change.start(core, view_change.next_view(core), reason)
    elif (
        core.change_timer_ms is not None and core.now_ms - core.change_timer_ms > core.timeout_ms()
    ):
        view_change.start(core, view_change.next_view(core), ViewChangeReason.TIMEOUT)


def overdue(core: Core) -> ViewChangeReason | None:
    """Why the present primary should be given up; None while it does its work."""
    primary = core.primary
    if primary in core.evidence and core.n - len(core.evidence) > core.f:
        return ViewChangeReason.EQUIVOCATION
    too_old_ms = core.now_ms - core.timeout_ms()
    if primary == core.me or core.view_since_ms >= too_old_ms:
        return None  # whatever waits, this primary has had the time since its view began
    oldest = core.pool.oldest_ms()
    if oldest is not None and oldest < too_old_ms:
        return ViewChangeReason.TIMEOUT
    if core.log.last > core.final and core.progress_ms < too_old_ms:
        return ViewChangeReason.TIMEOUT
    if due.is_late(core):
        return ViewChangeReason.TIMEOUT
    if core.heard_ms.get(primary, 0) < too_old_ms:
        return ViewChangeReason.SILENT
    return None


def deadline_ms(core: Core) -> int:
    """When the next tick matters."""
    times = [core.heartbeat_ms]
    if core.leads and (time_due := due.deadline_ms(core)) is not None:
        times.append(time_due)
    waits_since = core.change_timer_ms
    if core.active:
        waits_since = core.pool.oldest_ms() if core.primary != core.me else None
        if waits_since is not None:
            waits_since = max(waits_since, core.view_since_ms)
    if waits_since is not None:
        times.append(waits_since + core.timeout_ms() + 1)
    return max(core.now_ms, min(times))


def heartbeat(core: Core) -> None:
    """Say where I stand; resend what may have been lost while nothing moves."""
    core.save_final()
    core.broadcast(peers.status(core))
    catchup.pursue(core)
    if core.mute is not None:
        return
    if not core.active:
        if core.my_change is not None:
            core.broadcast(core.my_change)
        view_change.lead(core)
        view_change.take_new_view(core)
        return
    if core.leads:
        readmit(core)
    if core.final == core.final_at_heartbeat and core.log.last > core.final:
        resend_votes(core)
    core.final_at_heartbeat = core.final
    if core.my_checkpoint is not None and core.my_checkpoint.header.index > core.low:
        core.broadcast(core.my_checkpoint)
    oldest = core.pool.oldest_ms()
    if oldest is not None and core.now_ms - oldest > peers.heartbeat_every_ms(core):
        peers.forward_waiting(core)


def readmit(core: Core) -> None:
    """Move to the view that a lone doubter asks for, since it can not come back to this one.

    A replica that was cut off for a while asks for a view that nobody else wants, and signs
    nothing below it: one vote less, until the next view. The primary hands over, which costs
    one round. A liar can ask for ever: every resignation that anybody saw doubles the wait.
    """
    wanted = [c.view for c in core.changes.values() if core.view < c.view <= core.view + core.n]
    if not wanted:
        core.doubted_since_ms = None
        return
    if core.doubted_since_ms is None:
        core.doubted_since_ms = core.now_ms
    if core.now_ms - core.resigned_ms > FORGIVEN_AFTER_MS:
        core.resignations = 0
    wait = core.record.parameters.request_timeout_ms * READMIT_TIMEOUTS
    wait *= 2 ** min(core.resignations, READMIT_DOUBLINGS_MAX)
    if core.now_ms - core.doubted_since_ms >= wait:
        view_change.note_resignation(core)
        view_change.start(core, max(wanted), ViewChangeReason.READMIT)


def resend_votes(core: Core) -> None:
    """Repeat my proposals and votes for what is not final: identical bytes, never new ones."""
    for slot in core.log.slots(max(core.final, core.view_start - 1)):
        header = slot.header
        if header.term != core.view:
            continue
        if core.primary == core.me:
            if header.index == core.view_start and core.new_view is not None:
                core.broadcast(core.new_view)
            else:
                core.broadcast(PrePrepare(slot.entry))
        else:
            core.broadcast(core.vote_prepare(header))
        if core.prepared >= header.index and cc_covers(core, header):
            core.broadcast(core.vote_commit(header))


def cc_covers(core: Core, header: Header) -> bool:
    """True when my CC of the present view covers the entry."""
    cc = core.cc
    return cc is not None and cc.header.term == core.view and cc.header.index >= header.index


def on_status(core: Core, sender: int, message: Status) -> None:
    """Note where another replica stands, and send it the new view that it has missed."""
    core.peers[sender] = message
    if message.mute and sender == core.primary:
        core.heard_ms[sender] = core.view_since_ms  # it is there, but it can not lead
    behind = message.view < core.view or (message.view == core.view and not message.active)
    new_view = core.new_view
    if behind and core.active and new_view is not None:
        size = election_book.size_bytes(new_view.election) + len(new_view.first.body)
        if core.afford(sender, size + NEW_VIEW_COST_BYTES):
            core.send(sender, new_view)
    catchup.pursue(core)
