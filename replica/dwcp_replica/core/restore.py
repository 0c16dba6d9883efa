"""After a crash: the engine's state from its durable records, and how it takes up work again.

Only what was made durable is known. How a replica takes its place among the others again is its
driver's matter; but it never goes on leading a view or term in which it had proposed (epochs.md,
Restart), since it can not know what it had been about to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dwcp.wire.peer import Certificate, Election, Entry, NewView
from dwcp_replica.core import checkpoints, evidence, transfer
from dwcp_replica.core.chain import Point, Slot
from dwcp_replica.core.effects import (
    BaseRecord,
    BranchRecord,
    CertificateRecord,
    ElectionRecord,
    EnteredRecord,
    EntryRecord,
    EvidenceFound,
    EvidenceRecord,
    Ready,
    Record,
    TermRecord,
    ViewChangeRecord,
)
from dwcp_replica.core.state import Core


@dataclass(frozen=True, slots=True)
class OwnState:
    """The state that a start has found, at `applied`, with its digest.

    None when it is no state: it was being turned into another one.
    """

    applied: int | None
    digest: bytes


STARTING_TIMEOUTS = 2
"""How many timeouts longer a replica that has just started waits to hear from a primary."""


def replay(
    core: Core,
    records: Iterable[Record],
    resume: Callable[[Core, int], None],
    own: OwnState | None = None,
) -> None:
    """Bring the engine to where its records left it; emits only what must be executed again.

    `resume` is the driver's part: it is given the view that was entered last. `own` is the state
    that was found; without one, everything is executed again from the log's base.
    """
    entered = 1
    finals: list[Certificate] = []
    for record in records:
        match record:
            case EntryRecord(entry):
                replay_entry(core, entry)
            case BaseRecord():
                replay_base(core, record, finals)
            case CertificateRecord(certificate):
                replay_certificate(core, certificate, finals)
            case BranchRecord(entries):
                core.cc_branch = tuple(Slot.of(entry) for entry in entries)
            case TermRecord():
                core.raft.term_record = record
            case ViewChangeRecord(change):
                core.my_change = change
            case ElectionRecord(election, index, hash_, term):
                digest = election.digest()
                core.elections[digest] = (election, Point(index, hash_, term))
                core.elections_saved.add(digest)
            case EnteredRecord(view, digest, first):
                entered = view
                core.entered_election, start = core.elections[digest]
                core.view_start = start.index + 1
                if first is not None and isinstance(core.entered_election, Election):
                    core.new_view = NewView(core.entered_election, first)
                else:
                    core.new_view = None
            case EvidenceRecord(proof):
                liar = evidence.proven_liar(core.membership, proof)
                assert liar is not None, "a kept proof holds"
                core.evidence[liar] = EvidenceFound(liar, evidence.kind_of(proof), proof)
    resume(core, entered)
    resume_state(core, own)
    resume_log(core, finals)
    core.out = Ready(apply=core.out.apply)


def replay_entry(core: Core, entry: Entry) -> None:
    """Take an entry; one at or below the base was written before the log began anew.

    One that is held already was written again where the log began anew. What stands above it
    stays: a crash may have kept only the first of these records.
    """
    index = entry.header.index
    held = core.log.hash_at(index) == entry.header.hash()
    if index > core.log.base.index and not held:
        core.log.truncate(index - 1)
        core.log.append(Slot.of(entry))


def replay_base(core: Core, record: BaseRecord, finals: list[Certificate]) -> None:
    """Begin the log anew above a place; what it holds above, on the same chain, stays."""
    point = Point(record.index, record.hash, record.term)
    if core.log.hash_at(point.index) == point.hash:
        core.log.cut(point.index)
    else:
        core.log.restart(point, record.stamp_ms, record.body or None)
        core.cc_branch = ()
    core.final = core.emitted = max(core.final, point.index)
    if record.certificate is not None:
        replay_certificate(core, record.certificate, finals)


def replay_certificate(core: Core, certificate: Certificate, finals: list[Certificate]) -> None:
    """Take a certificate in the order in which it was written."""
    header = certificate.header
    # a CC that is known was written again where the log began anew
    if certificate.kind == "prepare" and core.cc != certificate:
        core.cc = certificate
        core.cc_branch = ()
    if core.membership.decides(certificate.kind):
        finals.append(certificate)
    if certificate.kind == "checkpoint":
        if header.index > core.low or core.stable is None:
            core.stable = certificate
        core.checkpoints[header.index] = certificate


def resume_state(core: Core, own: OwnState | None) -> None:
    """Where execution goes on; a state that the log does not reach, or not from below, is none."""
    base = core.log.base.index
    applied = core.record.start_index if own is None else own.applied
    if applied is None or not base <= applied <= core.log.last:
        core.stateless = True
        applied = base
    elif own is not None and applied % core.interval == 0:
        core.states[applied] = own.digest
    core.applied = core.emitted = core.saved = applied
    core.final = max(core.final, applied)  # only what was final was ever executed


def resume_log(core: Core, finals: list[Certificate]) -> None:
    """What is known to be final is executed again, in order."""
    for slot in core.log.slots(core.final):
        core.pool.proposed(slot.requests)
    for certificate in finals:
        header = certificate.header
        if core.log.hash_at(header.index) != header.hash():
            continue
        if header.index > core.final:
            core.set_final(certificate)
        elif certificate.kind == "commit" and header.index == core.final:
            core.final_certificate = certificate  # executed before, and shown to who lags
    core.emit_final()
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
    if core.stateless and core.stable is not None and core.shows_state:
        transfer.begin_at_stable(core)
    elif (state := core.states.get(core.applied)) is not None:
        checkpoints.vote(core, core.applied, state)  # said before, and perhaps not heard
