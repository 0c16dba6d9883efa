"""Reads without the log, under Crash trust: the read index (Ongaro 2014, section 6.4).

A leader that has an entry of its own term committed knows what is committed; that it is still the
leader is shown by a quorum that answers a heartbeat sent after the read came. A lying leader
could answer from the past, so that under Byzantine trust there is no such read.
"""

from __future__ import annotations

from typing import Final

from dwcp_replica.core.effects import ReadAnswer
from dwcp_replica.core.raft import role
from dwcp_replica.core.raft.state import PendingRead
from dwcp_replica.core.state import Core

READS_MAX: Final = 4096


def ask(core: Core, token: bytes) -> bool:
    """Take a read; True when a heartbeat must go out for it."""
    raft = core.raft
    of_my_term = core.final >= core.view_start or core.view == 1
    allowed = core.record.trust == "Crash" and role.leads(core) and raft.transfer_to is None
    if not allowed or not of_my_term or len(raft.reads) >= READS_MAX:
        core.out.reads.append(ReadAnswer(token, None))
        return False
    raft.reads.append(PendingRead(token, core.final, raft.beat + 1))
    return len(raft.reads) == 1  # the others wait for the answers to the heartbeat under way


def check(core: Core) -> bool:
    """Let those reads go whose heartbeat a quorum has answered; True when others need the next."""
    raft = core.raft
    if not raft.reads:
        return False
    beats = [raft.beat] + [p.beat for m, p in raft.progress.items() if m < core.n]
    proven = sorted(beats, reverse=True)[core.q - 1]
    done = [read for read in raft.reads if read.beat <= proven]
    raft.reads = [read for read in raft.reads if read.beat > proven]
    core.out.reads += [ReadAnswer(read.token, read.index) for read in done]
    return bool(done and raft.reads)
