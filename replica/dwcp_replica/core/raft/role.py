"""Who am I in which term: entering, leaving and leading one, and what each change forgets."""

from __future__ import annotations

from typing import Final

from dwcp.wire.peer import AnyElection
from dwcp_replica.core import election_book, peers
from dwcp_replica.core.chain import Point, Slot
from dwcp_replica.core.effects import (
    EnteredRecord,
    Panicked,
    PanicReason,
    ReadAnswer,
    TermRecord,
    ViewEntered,
)
from dwcp_replica.core.epochs import switching
from dwcp_replica.core.state import Core

ELECTIONS_PER_TIMEOUT: Final = 8
ELECTION_MS_MIN: Final = 100
HEARTBEATS_PER_ELECTION: Final = 5
DOUBLINGS_MAX: Final = 6


def election_ms(core: Core) -> int:
    """The least silence of a leader after which somebody may be voted for in its place."""
    return max(ELECTION_MS_MIN, core.record.parameters.request_timeout_ms // ELECTIONS_PER_TIMEOUT)


def beat_every_ms(core: Core) -> int:
    """How often a leader is heard at least."""
    return election_ms(core) // HEARTBEATS_PER_ELECTION


def rearm(core: Core) -> None:
    """Wait anew for a leader: for a random while, doubled for every term that brought nothing."""
    base = election_ms(core) * 2 ** min(core.attempts, DOUBLINGS_MAX)
    core.raft.waiting_ms = core.now_ms
    core.raft.patience_ms = base + core.raft.draw(base)


def leads(core: Core) -> bool:
    """True when this replica leads the present term and may propose in it."""
    return core.leads and core.raft.leading == core.view


def step_into(core: Core, term: int) -> None:
    """Take a higher term for the present one: whatever I was in a lower one is over."""
    assert term > core.view, f"terms only go up: {core.view} -> {term}"
    core.view = term
    core.active = False
    core.forget_votes()
    stop_leading(core)
    core.raft.campaign = None
    core.raft.staged = None
    core.raft.heard_ms = None
    core.raft.overdue_ms = None
    core.view_since_ms = core.now_ms


def stop_leading(core: Core) -> None:
    """Lead no longer; reads that waited for proof of leadership go another way."""
    raft = core.raft
    raft.leading = 0
    raft.transfer_to = None
    raft.progress.clear()
    raft.news.clear()
    core.out.reads += [ReadAnswer(read.token, None) for read in raft.reads]
    raft.reads.clear()


def abstain(core: Core) -> None:
    """Sign nothing more in the present term, durably: I had voted in it for another chain."""
    step_into(core, core.view + 1)
    core.raft.term_record = TermRecord(core.view, None)
    core.persist(core.raft.term_record)


def start_of_term(core: Core, term: int) -> tuple[AnyElection | None, Point] | None:
    """The certificate of a term and where it starts, if that is known and verified."""
    if term == 1:  # the epoch record is the first term's certificate
        record = core.record
        return None, Point(record.start_index, record.start_hash, 0)
    for election, start in core.elections.values():
        if election.view == term:
            return election, start
    return None


def enter(core: Core, election: AnyElection, start: Point, first: Slot | None) -> None:
    """Take part in the term of a certificate: my log holds its start, and its first entry now.

    Where the log begins with a checkpoint of this term, that entry lies below, and is None.
    """
    term = election.view
    if first is None:
        assert core.log.base.term == term, "a checkpoint of the term covers its start"
    else:
        assert core.log.hash_at(start.index) == start.hash, "the log is not the term's start"
        assert first.header.term == term, "the first entry is of the term"
    core.view = term
    core.active = True
    core.view_since_ms = core.progress_ms = core.now_ms
    core.view_start = start.index + 1
    core.prepared = core.final
    core.forget_votes()
    core.raft.campaign = None
    core.raft.staged = None
    election_book.remember(core, election, start)
    election_book.save(core, election.digest())
    core.entered_election = election
    core.persist(EnteredRecord(term, election.digest()))
    if first is not None and core.log.hash_at(core.view_start) != first.hash:
        core.append(first.entry, first)
    rearm(core)
    core.raft.heard_ms = core.now_ms
    core.emit(ViewEntered(term, core.primary))
    peers.forward_waiting(core)


def panic(core: Core, reason: PanicReason) -> None:
    """Ask that the epoch ends in PBFT: Raft gets nowhere. Reported once a term."""
    if (core.view, reason) not in core.raft.panicked:
        core.raft.panicked.add((core.view, reason))
        core.emit(Panicked(core.view, reason))
    switching.panic(core)
