"""The PBFT driver's functions under the names that every driver has (core/driver.py)."""

from __future__ import annotations

from dwcp.wire.envelope import Envelope
from dwcp.wire.peer import (
    Bodies,
    Commit,
    Elections,
    FetchBodies,
    Forward,
    NewView,
    Prepare,
    PrePrepare,
    Status,
    ViewChange,
)
from dwcp_replica.core import peers
from dwcp_replica.core.driver import Driver
from dwcp_replica.core.effects import ReadAnswer, ViewChangeReason
from dwcp_replica.core.pbft import adoption, normal, restart, timers, view_change
from dwcp_replica.core.state import Core


def driver() -> Driver:
    """The driver, with its functions as they are now."""
    return Driver(
        handlers={
            PrePrepare: normal.on_pre_prepare,
            Prepare: normal.on_prepare,
            Commit: normal.on_commit,
            ViewChange: view_change.on_view_change,
            NewView: view_change.on_new_view,
            Forward: peers.on_forward,
            Status: timers.on_status,
            FetchBodies: adoption.on_fetch_bodies,
            Bodies: view_change.on_bodies,
            Elections: view_change.on_elections,
        },
        resume=restart.resume,
        begin=restart.begin,
        on_tick=timers.on_tick,
        deadline_ms=timers.deadline_ms,
        submitted=submitted,
        restored=restored,
        read=read,
        hand_over=hand_over,
        follow_up=follow_up,
    )


def submitted(core: Core, envelope: Envelope) -> None:
    """A backup passes a client's envelope to its primary."""
    if core.active and core.primary != core.me:
        core.send(core.primary, Forward((envelope,)))


def restored(core: Core) -> None:
    """Lead the view that was asked for while I had no state."""
    view_change.weigh(core)


def read(core: Core, token: bytes) -> None:
    """In PBFT a read goes through the log."""
    core.out.reads.append(ReadAnswer(token, None))


def hand_over(core: Core, to: int | None = None) -> None:
    """A primary that is about to stop asks for the next view; for `to` only if that one is next."""
    view = view_change.next_view(core)
    if core.leads and to in (None, core.record.primary(view)):
        view_change.start(core, view, ViewChangeReason.HANDOVER)


def follow_up(core: Core) -> None:
    """Take what came early, leave a convicted primary, propose."""
    if core.active and core.early:
        replay_early(core)
    if core.mute is None and core.active and core.primary in core.evidence:
        reason = timers.overdue(core)
        if reason is not None:
            view_change.start(core, view_change.next_view(core), reason)
    if core.leave_view:
        core.leave_view = False
        if core.active and core.mute is None:
            view_change.start(core, view_change.next_view(core), ViewChangeReason.EQUIVOCATION)
    normal.propose(core)


def replay_early(core: Core) -> None:
    """Take the messages that had come before their view began here."""
    early, core.early = core.early, {}
    for sender in sorted(early):
        for message in early[sender]:
            match message:
                case PrePrepare() if core.active:
                    normal.on_pre_prepare(core, sender, message)
                case Prepare() if core.active:
                    normal.on_prepare(core, sender, message)
                case Commit() if core.active:
                    normal.on_commit(core, sender, message)
