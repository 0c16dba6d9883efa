"""Proofs that a leader lied: two of its signatures that no honest replica makes.

An honest leader signs one hash per (epoch, term, index), and each of its entries extends the
one before (epochs.md, Equivocation proof).
"""

from __future__ import annotations

from dwcp.wire.peer import Equivocation, Header
from dwcp_replica.core.certificates import Membership
from dwcp_replica.core.effects import EvidenceFound, EvidenceRecord
from dwcp_replica.core.state import Core

EQUIVOCATION = "equivocation"


def contradicts(first: Header, second: Header) -> bool:
    """True when no honest leader signs both headers."""
    if (first.epoch, first.term) != (second.epoch, second.term):
        return False
    if first.index == second.index:
        return first.hash() != second.hash()
    low, high = sorted((first, second), key=lambda header: header.index)
    return high.index == low.index + 1 and high.prev != low.hash()


def proven_liar(membership: Membership, proof: Equivocation) -> int | None:
    """The member that the proof convicts; None when it proves nothing."""
    if not contradicts(proof.first, proof.second):
        return None
    if not (membership.header_holds(proof.first) and membership.header_holds(proof.second)):
        return None
    return membership.record.primary(proof.first.term)


def check_header(core: Core, header: Header) -> bool:
    """Hold a verified header of the present view against my log; True when it is a proof."""
    for index in (header.index, header.index - 1, header.index + 1):
        slot = core.log.slot(index)
        if slot is not None and contradicts(slot.header, header):
            convict(core, Equivocation(slot.header, header))
            return True
    seen = core.seen.get(header.index)  # from a vote that came before the proposal
    if seen is not None and contradicts(seen, header):
        convict(core, Equivocation(seen, header))
        return True
    return False


def on_equivocation(core: Core, sender: int, proof: Equivocation) -> None:
    """Take a proof that another replica found, after checking it in full."""
    if proven_liar(core.membership, proof) is None:
        return core.refuse(sender, proof, "proves-nothing")
    return convict(core, proof)


def convict(core: Core, proof: Equivocation) -> None:
    """Keep a proof durably and pass it on, once. The driver leaves a convicted primary's view."""
    liar = core.record.primary(proof.first.term)
    if liar not in core.evidence:
        found = EvidenceFound(liar, EQUIVOCATION, proof)
        core.evidence[liar] = found
        core.persist(EvidenceRecord(proof))
        core.broadcast(proof)
        core.emit(found)
