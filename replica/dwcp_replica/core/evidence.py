"""Proofs that a member lied: two of its signatures that no honest replica makes.

An honest leader signs one hash per (epoch, term, index), and each of its entries extends the
one before (epochs.md, Equivocation proof).
"""

from __future__ import annotations

from itertools import pairwise

from dwcp.wire.peer import DoubleVote, Equivocation, Evidence, Fork, Header, vote_signing_bytes
from dwcp_replica.core.certificates import Membership
from dwcp_replica.core.effects import EvidenceFound, EvidenceRecord
from dwcp_replica.core.state import Core


def contradicts(first: Header, second: Header) -> bool:
    """True when no honest leader signs both headers."""
    if (first.epoch, first.term) != (second.epoch, second.term):
        return False
    if first.index == second.index:
        return first.hash() != second.hash()
    low, high = sorted((first, second), key=lambda header: header.index)
    return high.index == low.index + 1 and high.prev != low.hash()


def proven_liar(membership: Membership, proof: Evidence) -> int | None:
    """The member that the proof convicts; None when it proves nothing."""
    if isinstance(proof, DoubleVote):
        return _double_voter(membership, proof)
    if isinstance(proof, Fork):
        return _forked(membership, proof)
    if not contradicts(proof.first, proof.second):
        return None
    if not (membership.header_holds(proof.first) and membership.header_holds(proof.second)):
        return None
    return membership.record.primary(proof.first.term)


def _forked(membership: Membership, proof: Fork) -> int | None:
    """The leader that signed entries of one term on two chains, whatever their indexes."""
    first, other = proof.first, proof.other
    last = other[-1]
    linked = all(
        above.index == below.index + 1 and above.prev == below.hash()
        for below, above in pairwise(other)
    )
    same_term = (first.epoch, first.term) == (last.epoch, last.term)
    parted = other[0].index == first.index and other[0].hash() != first.hash()
    if not (linked and same_term and parted):
        return None
    if not (membership.header_holds(first) and membership.header_holds(last)):
        return None
    return membership.record.primary(first.term)


def _double_voter(membership: Membership, proof: DoubleVote) -> int | None:
    """An honest member votes once per place and kind, and has one state after an entry."""
    first, second = proof.first, proof.second
    same_place = (first.epoch, first.index) == (second.epoch, second.index)
    if proof.kind != "checkpoint":
        same_place = same_place and first.term == second.term
    said = (first.hash(), proof.first_state), (second.hash(), proof.second_state)
    if not same_place or said[0] == said[1] or first.epoch != membership.record.epoch:
        return None
    for header, state, sig in (
        (first, proof.first_state, proof.first_sig),
        (second, proof.second_state, proof.second_sig),
    ):
        message = vote_signing_bytes(membership.scope, proof.kind, header, state)
        if not membership.signed(proof.member, message, sig):
            return None
    return proof.member


def kind_of(proof: Evidence) -> str:
    """An enumerated word for what was proven; a metric label."""
    if isinstance(proof, DoubleVote):
        return f"double-{proof.kind}"
    return "fork" if isinstance(proof, Fork) else "equivocation"


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


def on_evidence(core: Core, sender: int, proof: Evidence) -> None:
    """Take a proof that another replica found, after checking it in full."""
    if proven_liar(core.membership, proof) is None:
        return core.refuse(sender, proof, "proves-nothing")
    return convict(core, proof)


def convict(core: Core, proof: Evidence) -> None:
    """Keep a proof durably and pass it on, once. The driver leaves a convicted primary's view."""
    liar = proven_liar(core.membership, proof)
    assert liar is not None, "what I convict on must hold"
    if liar not in core.evidence:
        found = EvidenceFound(liar, kind_of(proof), proof)
        core.evidence[liar] = found
        core.persist(EvidenceRecord(proof))
        core.broadcast(proof)
        core.emit(found)
