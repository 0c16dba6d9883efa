"""The Raft driver's functions under the names that every driver has (core/driver.py)."""

from __future__ import annotations

from dwcp.wire.envelope import Envelope
from dwcp.wire.peer import (
    Append,
    Appended,
    Commit,
    Elections,
    Forward,
    Prepare,
    PreVote,
    Status,
    Transfer,
    Vote,
    VoteRequest,
)
from dwcp_replica.core import peers
from dwcp_replica.core.driver import Driver
from dwcp_replica.core.raft import election, following, leading, reads, role, timers
from dwcp_replica.core.restore import STARTING_TIMEOUTS
from dwcp_replica.core.state import Core


def driver() -> Driver:
    """The driver, with its functions as they are now."""
    return Driver(
        handlers={
            Append: following.on_append,
            Appended: leading.on_appended,
            Prepare: leading.on_ack,
            Commit: leading.on_cert_ack,
            VoteRequest: election.on_vote_request,
            PreVote: election.on_pre_vote,
            Vote: election.on_vote,
            Transfer: election.on_transfer,
            Elections: election.on_elections,
            Forward: peers.on_forward,
            Status: timers.on_status,
        },
        resume=resume,
        begin=begin,
        on_tick=timers.on_tick,
        deadline_ms=timers.deadline_ms,
        submitted=submitted,
        restored=restored,
        read=read,
        hand_over=leading.hand_over,
        follow_up=follow_up,
    )


def resume(core: Core, entered: int) -> None:
    """The term that I am in, and whether I take part in it.

    A term that I had led, or stood in, is over for me: what I had been about to do in it is not
    known any more (epochs.md, Restart).
    """
    record = core.raft.term_record
    core.view = max(entered, record.term if record is not None else 1)
    core.yield_to_log()
    began = core.log.tip.term == core.view
    led = core.primary == core.me and began
    core.active = core.view == entered and (began or entered == 1) and not led


def begin(core: Core) -> None:
    """Wait for a leader, or lead the first term of the epoch if it is mine and has not begun."""
    core.raft.begun_ms = core.now_ms
    role.rearm(core)
    first_is_mine = core.view == 1 and core.primary == core.me and core.active
    if first_is_mine and core.mute is None:
        leading.begin(core)
        # connections to processes that are new take a while: others are not silent yet
        patience_ms = STARTING_TIMEOUTS * core.record.parameters.request_timeout_ms
        core.raft.answered_ms = dict.fromkeys(range(core.n), core.now_ms + patience_ms)


def submitted(core: Core, envelope: Envelope) -> None:
    """A follower passes a client's envelope to its leader."""
    if core.active and core.primary != core.me:
        core.send(core.primary, Forward((envelope,)))


def restored(core: Core) -> None:
    """Nothing waits for it: a follower with its state again may stand at its next timer."""


def read(core: Core, token: bytes) -> None:
    """Prove that I lead, for a read; or say that it must go through the log."""
    if reads.ask(core, token):
        leading.beat(core)
        reads.check(core)


def follow_up(core: Core) -> None:
    """Leave a term in which catch-up contradicts me; propose; send what is new."""
    if core.leave_view:
        core.leave_view = False
        if core.active and core.mute is None:
            role.abstain(core)
            role.rearm(core)
    if core.active and core.log.tip.term != core.view and core.view > 1:
        core.active = False  # the log began anew at a checkpoint of an earlier term
    if core.raft.leading and not role.leads(core):
        role.stop_leading(core)  # catch-up has brought a later term
    leading.propose(core)
    leading.check_transfer(core)
    leading.flush(core)
