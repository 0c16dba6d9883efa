"""Time in the Raft driver: heartbeats, elections, and letting a lone member of a higher term in."""

from __future__ import annotations

from typing import Final

from dwcp.wire.peer import Status
from dwcp_replica.core import catchup, due, peers
from dwcp_replica.core.effects import ViewChangeReason
from dwcp_replica.core.raft import election, leading, overdue, role
from dwcp_replica.core.state import Core

READMIT_ELECTIONS: Final = 2
"""Election time-outs that a leader waits before it lets a member of a higher term in; doubled."""
READMIT_DOUBLINGS_MAX: Final = 10
FORGIVEN_AFTER_MS: Final = 24 * 3600 * 1000


def on_tick(core: Core) -> None:
    """Act on what has become due."""
    if core.now_ms >= core.heartbeat_ms:
        core.heartbeat_ms = core.now_ms + peers.heartbeat_every_ms(core)
        heartbeat(core)
    if core.mute is not None:
        return
    if role.leads(core):
        leading.check_quorum(core)
        leading.check_transfer(core)
    if role.leads(core):
        if core.now_ms >= core.raft.beat_ms:
            leading.beat(core)
        return
    reason = why_stand(core)
    if reason is not None:
        election.stand(core, reason)


def why_stand(core: Core) -> ViewChangeReason | None:
    """Why this replica should stand for election now; None while it need not."""
    raft = core.raft
    if core.now_ms - raft.waiting_ms > raft.patience_ms:
        return ViewChangeReason.SILENT
    reason = overdue.reason(core) if core.active else None
    if reason is None:
        raft.overdue_ms = None
        return None
    if raft.overdue_ms is None:  # all others find the same at the same time: not all at once
        raft.overdue_ms = core.now_ms + raft.draw(role.election_ms(core))
    if core.now_ms < raft.overdue_ms:
        return None
    raft.overdue_ms = core.now_ms + raft.patience_ms
    return reason


def deadline_ms(core: Core) -> int:
    """When the next tick matters."""
    raft = core.raft
    times = [core.heartbeat_ms]
    if role.leads(core):
        times.append(raft.beat_ms)
        if (time_due := due.deadline_ms(core)) is not None:
            times.append(time_due)
    elif core.mute is None:
        times.append(raft.waiting_ms + raft.patience_ms + 1)
        if raft.overdue_ms is not None:
            times.append(raft.overdue_ms)
    return max(core.now_ms, min(times))


def heartbeat(core: Core) -> None:
    """Say where I stand; resend what may have been lost."""
    core.save_final()
    core.broadcast(peers.status(core))
    catchup.pursue(core)
    if core.mute is not None:
        return
    campaign = core.raft.campaign
    if campaign is not None and not campaign.pre and campaign.term == core.view:
        core.broadcast(election.request(core, campaign))
    if role.leads(core):
        readmit(core)
    if core.my_checkpoint is not None and core.my_checkpoint.header.index > core.low:
        core.broadcast(core.my_checkpoint)
    oldest = core.pool.oldest_ms()
    if oldest is not None and core.now_ms - oldest > peers.heartbeat_every_ms(core):
        peers.forward_waiting(core)
    if (reason := overdue.despair(core)) is not None:
        role.panic(core, reason)  # last: it may end the epoch


def readmit(core: Core) -> None:
    """Raise my term above that of a member that went on alone, since it can not come back.

    A candidate that was not elected signs nothing below its term: one vote less. Leading on in a
    higher term of mine costs one round. A liar can ask for ever, so that the wait doubles.
    """
    wanted = [t for t in core.raft.terms.values() if core.view < t <= core.view + 64 * core.n]
    if not wanted:
        core.doubted_since_ms = None
        return
    if core.doubted_since_ms is None:
        core.doubted_since_ms = core.now_ms
    if core.now_ms - core.resigned_ms > FORGIVEN_AFTER_MS:
        core.resignations = 0
    wait = role.election_ms(core) * READMIT_ELECTIONS
    wait *= 2 ** min(core.resignations, READMIT_DOUBLINGS_MAX)
    if core.now_ms - core.doubted_since_ms >= wait:
        core.doubted_since_ms = None
        core.resignations += 1
        core.resigned_ms = core.now_ms
        transfer = leading.signed_transfer(core, core.me)
        election.stand(core, ViewChangeReason.READMIT, transfer, above=max(wanted))


def on_status(core: Core, sender: int, message: Status) -> None:
    """Note where another replica stands."""
    core.peers[sender] = message
    if 0 <= sender < core.n:
        core.raft.terms[sender] = max(1, message.view)
    catchup.pursue(core)
