"""After a crash: the engine's state from its durable records, and how it takes up work again.

Only what was made durable is known. How a replica takes its place among the others again is its
driver's matter; but it never goes on leading a view or term in which it had proposed (epochs.md,
Restart), since it can not know what it had been about to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from dwcp.wire.peer import Certificate
from dwcp_replica.core import evidence
from dwcp_replica.core.chain import Point, Slot
from dwcp_replica.core.effects import (
    BranchRecord,
    CertificateRecord,
    ElectionRecord,
    EnteredRecord,
    EntryRecord,
    EvidenceFound,
    EvidenceRecord,
    Ready,
    Record,
    ViewChangeRecord,
)
from dwcp_replica.core.state import Core

STARTING_TIMEOUTS = 2
"""How many timeouts longer a replica that has just started waits to hear from a primary."""


def replay(core: Core, records: Iterable[Record], resume: Callable[[Core, int], None]) -> None:
    """Bring the engine to where its records left it; emits only what must be executed again.

    `resume` is the driver's part: it is given the view that was entered last.
    """
    entered = 1
    finals: list[Certificate] = []
    for record in records:
        match record:
            case EntryRecord(entry):
                core.log.truncate(entry.header.index - 1)
                core.log.append(Slot.of(entry))
            case CertificateRecord(certificate):
                replay_certificate(core, certificate, finals)
            case BranchRecord(entries):
                core.cc_branch = tuple(Slot.of(entry) for entry in entries)
            case ViewChangeRecord(change):
                core.my_change = change
            case ElectionRecord(election, index, hash_, term):
                digest = election.digest()
                core.elections[digest] = (election, Point(index, hash_, term))
                core.elections_saved.add(digest)
            case EnteredRecord(view, digest):
                entered = view
                core.entered_election, start = core.elections[digest]
                core.view_start = start.index + 1
            case EvidenceRecord(proof):
                liar = evidence.proven_liar(core.membership, proof)
                assert liar is not None, "a kept proof holds"
                core.evidence[liar] = EvidenceFound(liar, evidence.kind_of(proof), proof)
    resume(core, entered)
    resume_log(core, finals)
    core.out = Ready(apply=core.out.apply)


def replay_certificate(core: Core, certificate: Certificate, finals: list[Certificate]) -> None:
    """Take a certificate in the order in which it was written."""
    header = certificate.header
    if certificate.kind == "prepare":
        core.cc = certificate
        core.cc_branch = ()
        return
    finals.append(certificate)
    if certificate.kind == "checkpoint":
        core.stable = certificate
        core.checkpoints[header.index] = certificate


def resume_log(core: Core, finals: list[Certificate]) -> None:
    """What is known to be final is executed again, in order."""
    for slot in core.log.slots(core.log.base.index):
        core.pool.proposed(slot.requests)
    for certificate in finals:
        header = certificate.header
        if header.index > core.final and core.log.hash_at(header.index) == header.hash():
            core.set_final(certificate)
    core.unsaved_final = None
    core.prepared = core.final
    cc = core.cc
    if cc is not None and core.log.hash_at(cc.header.index) == cc.header.hash():
        core.prepared = max(core.prepared, cc.header.index if cc.header.term == core.view else 0)
    core.final_at_heartbeat = core.final


def begin(core: Core) -> None:
    """The first tick: start every clock now. What was led before is the driver's matter."""
    core.view_since_ms = core.progress_ms = core.now_ms
    # connections to a process that is new take a while: others are not silent yet
    patience_ms = STARTING_TIMEOUTS * core.record.parameters.request_timeout_ms
    core.heard_ms = dict.fromkeys(range(core.n), core.now_ms + patience_ms)
    core.heartbeat_ms = core.now_ms
