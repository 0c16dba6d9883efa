"""What a stable checkpoint makes needless, and the records that stand for all that is left.

Castro and Liskov 1999, section 4.3. Votes below a stable checkpoint go at once. Entries go when
the state that they lead to is saved as well; an interval of them is kept for members that lag a
little. What is left of the engine's memory can be written down as a few records (`durable`), so
that the log on disk can begin anew with them and its older part be removed.

A CC goes only with a checkpoint that covers it, and election certificates only with the last
entry of their term (epochs.md, Checkpoints); headers and certificates that are cut from the log
go to the archive (durable/archive.py), where they stay as evidence.
"""

from __future__ import annotations

from typing import Final

from dwcp.wire.peer import AnyElection, Certificate
from dwcp_replica.core.effects import (
    BaseRecord,
    BranchRecord,
    CertificateRecord,
    ElectionRecord,
    EnteredRecord,
    EntryRecord,
    EvidenceRecord,
    Record,
    ViewChangeRecord,
)
from dwcp_replica.core.state import Core

KEPT_BYTES_MAX: Final = 32 * 1024 * 1024
"""Bodies kept below what is needed, for members that lag a little."""
BEHIND_WINDOWS_MAX: Final = 4
"""Executed so far behind the log, a state is quicker fetched than reached."""


def adopt_stable(core: Core, certificate: Certificate) -> None:
    """A verified stable checkpoint, whose entry is held or is the log's base, is the newest."""
    header = certificate.header
    if header.index > core.final:
        core.set_final(certificate)  # a quorum has executed it as final
    if core.stable is None or header.index > core.low:
        core.stable = certificate
        core.checkpoints[header.index] = certificate
        core.persist(CertificateRecord(certificate))
    core.checkpoint_votes.forget_upto(header.index)
    core.checkpoint_headers = {
        key: kept for key, kept in core.checkpoint_headers.items() if kept.index > header.index
    }
    for index in [i for i in core.ahead if i <= core.final]:
        del core.ahead[index]
    for index in [i for i in core.seen if i <= header.index]:
        del core.seen[index]


def is_far_behind(core: Core) -> bool:
    """True when execution, or a transfer, can not keep up with what the others agree on."""
    return core.log.last - reached(core) > BEHIND_WINDOWS_MAX * core.window


def reached(core: Core) -> int:
    """Where the state stands, or will stand after the transfer that is under way."""
    return core.applied if core.transfer is None else core.transfer.index


def collect(core: Core) -> None:
    """Cut the log where nothing above rests on it."""
    floor = min(core.low, core.saved if core.transfer is None else core.transfer.index)
    lowest = max(core.log.base.index, floor - core.interval)
    index, room = floor, KEPT_BYTES_MAX
    while index > lowest and room > 0:
        slot = core.log.slot(index)
        assert slot is not None, "what is above the base is held"
        room -= len(slot.entry.body)
        index -= 1
    if index - core.log.base.index < core.interval:
        return
    core.log.cut(index)
    core.checkpoints = {i: kept for i, kept in core.checkpoints.items() if i >= index}
    core.switches = [i for i in core.switches if i > index]
    election = entered(core)
    present = None if election is None else election.digest()
    gone = [
        digest
        for digest, (one, start) in core.elections.items()
        if one.view < core.log.base.term and start.index < index and digest != present
    ]
    for digest in gone:
        del core.elections[digest]
        core.elections_saved.discard(digest)


def entered(core: Core) -> AnyElection | None:
    """The certificate of the view that was entered last; None in the first."""
    return core.entered_election if core.new_view is None else core.new_view.election


def durable(core: Core) -> list[Record]:
    """All that must be found again after a crash, as records that stand for all before them."""
    base = core.log.base
    found: list[Record] = [
        BaseRecord(
            base.index,
            base.hash,
            base.term,
            core.log.stamp_at(base.index),
            core.checkpoints.get(base.index),
            core.log.body_at(base.index) or b"",
        )
    ]
    for digest, (one, start) in core.elections.items():
        if digest in core.elections_saved:
            found.append(ElectionRecord(one, start.index, start.hash, start.term))
    if (election := entered(core)) is not None:
        first = None if core.new_view is None else core.new_view.first
        found.append(EnteredRecord(election.view, election.digest(), first))
    found += [EntryRecord(slot.entry) for slot in core.log.slots(base.index)]
    found += [CertificateRecord(core.checkpoints[index]) for index in sorted(core.checkpoints)]
    if core.final_certificate is not None:
        found.append(CertificateRecord(core.final_certificate))
    if core.cc is not None:
        found.append(CertificateRecord(core.cc))
    if core.cc_branch:
        found.append(BranchRecord(tuple(slot.entry for slot in core.cc_branch)))
    if core.raft.term_record is not None:
        found.append(core.raft.term_record)
    if core.my_change is not None:
        found.append(ViewChangeRecord(core.my_change))
    found += [EvidenceRecord(core.evidence[member].evidence) for member in sorted(core.evidence)]
    return found
