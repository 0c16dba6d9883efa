"""The slot: one PBFT instance, with views of its own, that decides the next epoch record.

Members of the epoch that ends take part once they have sealed it. The value is a quorum of
SEALs, agreement is on the digest of the whole record (two records can share one start).

    view v: proposal --quorum of PREPARE--> prepared, durable --quorum of COMMIT--> decided
    view v --timer--> asks for v+1, showing its highest prepared certificate
    asks for v --its primary shows a quorum that asks for v--> in v, with the value of the
                 highest prepared view among them, any valid one only if there is none

The primary of view v is member (e + 1 + v) mod n. A view's timer starts at its proposal, or when
a quorum asks for that view or a later one; f+1 asking for more take everyone along; the last
VIEW-CHANGE is resent for ever. After asking for v a member signs nothing below v. Castro and
Liskov 1999, sections 4.2 to 4.4, for one sequence number; checked in the slot's model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from dwcp.wire.epochs import (
    CertifiedRecord,
    FetchValue,
    SlotCertificate,
    SlotChange,
    SlotPhase,
    SlotProposal,
    SlotValue,
    SlotVote,
    seals_digest,
    slot_signing_bytes,
)
from dwcp.wire.peer import VoteSig
from dwcp_replica.core.certificates import Membership
from dwcp_replica.core.effects import SlotChangeRecord, SlotPreparedRecord, SlotVoteRecord
from dwcp_replica.core.epochs import values
from dwcp_replica.core.state import Core

TIMEOUT_MS_MAX: Final = 60_000
SLOT_PHASES: Final[tuple[SlotPhase, ...]] = ("slot-prepare", "slot-commit")
VIEWS_MAX: Final = 10_000
"""A view of the slot that is further away than this is no honest member's."""


def primary(core: Core, view: int) -> int:
    """The member that proposes in a view of the slot."""
    return (core.record.epoch + 1 + view) % core.n


def timeout_ms(core: Core) -> int:
    """How long the present view may take: doubled with each view."""
    base = core.record.parameters.request_timeout_ms
    return int(min(base * 2 ** min(core.ending.slot.view, 10), max(base, TIMEOUT_MS_MAX)))


def may_sign(core: Core) -> bool:
    """True when I take part: the epoch is sealed, durably, by a SEAL of mine."""
    return core.ending.seal is not None and core.mute is None and core.halted is None


def _sign(core: Core, message: bytes) -> bytes:
    assert may_sign(core), "nothing is signed in the slot before the epoch is sealed"
    return core.signer.sign(message)


# --- proposing -----------------------------------------------------------------------------------


def lead(core: Core) -> None:
    """Propose in the view that I lead, once what it takes is here."""
    slot = core.ending.slot
    if not may_sign(core) or primary(core, slot.view) != core.me:
        return
    if slot.proposal is not None and slot.proposal.view >= slot.view:
        return
    changes: tuple[SlotChange, ...] = ()
    if slot.view > 0:
        asking = [c for m, c in sorted(core.ending.slot.changes.items()) if c.view == slot.view]
        if slot.change is None or len(asking) < core.q:
            return
        changes = tuple(asking[: core.q])
    value = _value_to_propose(core, changes)
    if value is not None:
        _propose(core, value, changes)


def _value_to_propose(core: Core, changes: tuple[SlotChange, ...]) -> SlotValue | None:
    bound = highest_prepared(changes)
    if bound is None:
        return _own_value(core)
    value = core.ending.slot.values.get(bound.value)
    if value is None:
        ask_value(core, bound.value)
    return value


def _own_value(core: Core) -> SlotValue | None:
    """A value from the SEALs that I hold, mine among them, without those that are worthless."""
    ending, slot = core.ending, core.ending.slot
    usable = [m for m in sorted(ending.seals) if m not in ending.worthless and m != core.me]
    if len(usable) + 1 < core.q or core.me not in ending.seals:
        return None
    chosen = sorted([core.me, *usable[: core.q - 1]])
    found = values.value_of(core, tuple(ending.seals[m] for m in chosen), core.me)
    match found:
        case SlotValue():
            slot.gathering_ms = None
            return found
        case values.Invalid(_, header) if header is not None:
            _leave_out(core, header)
        case values.Waiting(headers) if headers:
            if slot.gathering_ms is None:
                slot.gathering_ms = core.now_ms
            if core.now_ms - slot.gathering_ms > timeout_ms(core) // 2:
                slot.gathering_ms = None
                _leave_out(core, headers[0])  # who honestly showed it would have answered
    return None


def _leave_out(core: Core, header: object) -> None:
    """Go on without the SEALs that show an entry which nobody can produce."""
    for member, seal in sorted(core.ending.seals.items()):
        if member != core.me and (header in seal.log or header in seal.branch):
            core.ending.worthless.add(member)
            core.refuse(member, seal, "worthless-entry")


def _propose(core: Core, value: SlotValue, changes: tuple[SlotChange, ...]) -> None:
    slot, epoch = core.ending.slot, core.record.epoch
    digest = value.record.hash()
    message = slot_signing_bytes(core.membership.scope, "slot-proposal", epoch, slot.view, digest)
    slot.proposal = SlotProposal(epoch, slot.view, value, changes, core.me, _sign(core, message))
    _accept(core, slot.view, value, slot.proposal)


def highest_prepared(changes: Sequence[SlotChange]) -> SlotCertificate | None:
    """The certificate of the highest view among these VIEW-CHANGEs."""
    shown = [c.prepared for c in changes if c.prepared is not None]
    return max(shown, key=lambda certificate: certificate.view, default=None)


# --- accepting -----------------------------------------------------------------------------------


def on_proposal(core: Core, sender: int, message: SlotProposal) -> None:
    """Check a proposal in full and keep it until what it refers to is here."""
    slot = core.ending.slot
    if message.view < slot.view or message.view > slot.view + VIEWS_MAX:
        return
    reason = proposal_fault(core, message)
    if reason is not None:
        core.refuse(sender, message, reason)
        return
    slot.waiting[message.member] = (message, sender)
    take_waiting(core)


def proposal_fault(core: Core, message: SlotProposal) -> str | None:
    """Why a proposal does not hold, whatever its value; None when it does."""
    membership, digest = core.membership, message.value.record.hash()
    if message.epoch != core.record.epoch:
        return "epoch"
    if message.member != primary(core, message.view):
        return "slot-primary"
    signed = slot_signing_bytes(
        membership.scope, "slot-proposal", message.epoch, message.view, digest
    )
    if not membership.signed(message.member, signed, message.sig):
        return "signature"
    if message.view == 0:
        return "slot-changes" if message.changes else None
    members = [change.member for change in message.changes]
    if len(members) != membership.quorum or members != sorted(set(members)):
        return "slot-changes"
    for change in message.changes:
        if change.view != message.view or change_fault(membership, change) is not None:
            return "slot-changes"
    bound = highest_prepared(message.changes)
    if bound is not None and bound.value != digest:
        return "slot-value"
    return None


def take_waiting(core: Core) -> None:
    """Accept the proposals whose value proves valid now; drop those that never will."""
    slot = core.ending.slot
    if not may_sign(core):
        return
    for member in sorted(slot.waiting):
        message, sender = slot.waiting[member]
        if message.view < slot.view or (slot.voted is not None and slot.voted[0] >= message.view):
            del slot.waiting[member]
            continue
        found = values.value_of(core, message.value.seals, sender)
        if isinstance(found, values.Waiting):
            continue
        del slot.waiting[member]
        if isinstance(found, values.Invalid):
            core.refuse(sender, message, found.reason)
        elif found.record != message.value.record:
            core.refuse(sender, message, "slot-record")
        else:
            _accept(core, message.view, found, None)


def _accept(core: Core, view: int, value: SlotValue, proposed: SlotProposal | None) -> None:
    """Enter the view with this value: durable before anything about it leaves."""
    slot, digest = core.ending.slot, value.record.hash()
    assert slot.voted is None or slot.voted[0] < view, "one value in a view"
    assert view >= slot.view, f"a slot vote below the view asked for: {view} < {slot.view}"
    if view > slot.view:
        slot.view, slot.change = view, None
    slot.voted = (view, digest)
    bound = {slot.prepared.value} if slot.prepared is not None else set()
    bound.add(digest)
    slot.values[digest] = value
    slot.values = {key: kept for key, kept in slot.values.items() if key in bound}
    slot.starts = {key: kept for key, kept in slot.starts.items() if key in bound}
    slot.timer_ms = core.now_ms
    core.persist(SlotVoteRecord(view, value, proposed))
    if proposed is not None:
        core.broadcast(proposed)
    vote(core, "slot-prepare", view, digest)
    settle(core)


def vote(core: Core, phase: SlotPhase, view: int, digest: bytes) -> None:
    """Sign, count and send my vote."""
    slot, epoch = core.ending.slot, core.record.epoch
    assert view == slot.view, "a slot vote is for the present view"
    assert slot.voted == (view, digest), "I vote only for what I accepted"
    message = slot_signing_bytes(core.membership.scope, phase, epoch, view, digest)
    mine = SlotVote(epoch, view, digest, phase, core.me, _sign(core, message))
    slot.votes[phase].add(mine)
    core.broadcast(mine)


def on_vote(core: Core, sender: int, message: SlotVote) -> None:
    """Count a vote; `decided` says what follows."""
    if message.epoch != core.record.epoch:
        core.refuse(sender, message, "epoch")
        return
    signed = slot_signing_bytes(
        core.membership.scope, message.phase, message.epoch, message.view, message.value
    )
    if not core.membership.signed(message.member, signed, message.sig):
        core.refuse(sender, message, "signature")
        return
    slot = core.ending.slot
    slot.votes[message.phase].add(message)
    settle(core)
    if (
        message.phase == "slot-commit"
        and slot.outcome is None
        and certificate_of(core, "slot-commit", message.view, message.value) is not None
    ):
        slot.outcome = (message.view, message.value)


def settle(core: Core) -> None:
    """Turn a quorum of PREPAREs for what I accepted into a certificate, then COMMIT."""
    slot = core.ending.slot
    if slot.voted is None or slot.voted[0] != slot.view or not may_sign(core):
        return
    view, digest = slot.voted
    if slot.prepared is not None and slot.prepared.view >= view:
        return
    certificate = certificate_of(core, "slot-prepare", view, digest)
    if certificate is not None:
        slot.prepared = certificate
        core.persist(SlotPreparedRecord(certificate))
        slot.committed = (view, digest)
        vote(core, "slot-commit", view, digest)
        if certificate_of(core, "slot-commit", view, digest) is not None:
            slot.outcome = (view, digest)


def certificate_of(
    core: Core, phase: SlotPhase, view: int, digest: bytes
) -> SlotCertificate | None:
    """A quorum's votes, when they are here."""
    votes = core.ending.slot.votes[phase].matching(view, digest)
    if len(votes) < core.q:
        return None
    sigs = tuple(VoteSig(vote.member, vote.sig) for vote in votes[: core.q])
    return SlotCertificate(phase, core.record.epoch, view, digest, sigs)


def decided(core: Core) -> CertifiedRecord | None:
    """The record with its certificate, once a quorum has committed it and its value is here."""
    slot = core.ending.slot
    if slot.outcome is None:
        return None
    view, digest = slot.outcome
    certificate = certificate_of(core, "slot-commit", view, digest)
    assert certificate is not None, "the votes of an outcome are kept"
    value = slot.values.get(digest)
    if value is not None:
        return CertifiedRecord(value.record, view, certificate.votes)
    if digest not in slot.wanted:
        ask_value(core, digest)
    return None


# --- changing views ------------------------------------------------------------------------------


def start_change(core: Core, view: int) -> None:
    """Give the present view of the slot up and ask for `view`."""
    slot = core.ending.slot
    if not may_sign(core):
        return
    assert view > slot.view, f"the slot's views only go up: {slot.view} -> {view}"
    slot.view = view
    slot.timer_ms = slot.gathering_ms = None
    change = SlotChange(core.record.epoch, view, slot.prepared, core.me, bytes(64))
    sig = _sign(core, change.signing_bytes(core.membership.scope))
    slot.change = msgspec.structs.replace(change, sig=sig)
    slot.changes[core.me] = slot.change
    core.persist(SlotChangeRecord(slot.change))
    core.broadcast(slot.change)
    weigh(core)


def on_change(core: Core, sender: int, message: SlotChange) -> None:
    """Keep a member's latest VIEW-CHANGE, and see what follows."""
    slot = core.ending.slot
    held = slot.changes.get(message.member)
    if held is not None and held.view >= message.view:
        return
    reason = change_fault(core.membership, message)
    if reason is not None:
        core.refuse(sender, message, reason)
        return
    slot.changes[message.member] = message
    weigh(core)


def change_fault(membership: Membership, change: SlotChange) -> str | None:
    """Why a VIEW-CHANGE of the slot does not count; None when it does."""
    if change.epoch != membership.record.epoch:
        return "epoch"
    if not membership.signed(change.member, change.signing_bytes(membership.scope), change.sig):
        return "signature"
    prepared = change.prepared
    if prepared is not None and (
        prepared.view >= change.view or not certificate_holds(membership, prepared)
    ):
        return "slot-prepared"
    return None


def certificate_holds(membership: Membership, certificate: SlotCertificate) -> bool:
    """True when a quorum of distinct members accepted the value, each signature verified."""
    voters = {vote.member for vote in certificate.votes}
    if len(voters) != len(certificate.votes) or len(voters) < membership.quorum:
        return False
    if certificate.phase != "slot-prepare" or certificate.epoch != membership.record.epoch:
        return False
    signed = slot_signing_bytes(
        membership.scope, "slot-prepare", certificate.epoch, certificate.view, certificate.value
    )
    return all(membership.signed(vote.member, signed, vote.sig) for vote in certificate.votes)


def weigh(core: Core) -> None:
    """Join, start the timer, or lead, as the SEALs and VIEW-CHANGEs here allow."""
    slot = core.ending.slot
    if not may_sign(core):
        return
    others = [c.view for m, c in slot.changes.items() if m != core.me and c.view > slot.view]
    if len(others) > core.f:
        start_change(core, sorted(others, reverse=True)[core.f])
        return
    if slot.timer_ms is None:
        # a VIEW-CHANGE counts for every lower view; view 0 begins with a quorum of SEALs
        wanting = sum(c.view >= slot.view for c in slot.changes.values())
        begun = len(core.ending.seals) if slot.view == 0 else wanting
        if begun >= core.q:
            slot.timer_ms = core.now_ms
    lead(core)


def on_tick(core: Core) -> None:
    """Give a view up that takes too long; go on gathering what a value lacks."""
    slot = core.ending.slot
    if not may_sign(core):
        return
    if slot.timer_ms is not None and core.now_ms - slot.timer_ms > timeout_ms(core):
        start_change(core, slot.view + 1)


def resend(core: Core) -> None:
    """Repeat what may have been lost: identical bytes, never new ones."""
    slot = core.ending.slot
    if not may_sign(core):
        return
    lead(core)
    take_waiting(core)
    if slot.change is not None:
        core.broadcast(slot.change)
    elif core.me in slot.changes:
        core.broadcast(slot.changes[core.me])
    if slot.proposal is not None and slot.proposal.view == slot.view:
        core.broadcast(slot.proposal)
    for phase in SLOT_PHASES:
        mine = slot.votes[phase].of(core.me, slot.view)
        if mine is not None:
            core.broadcast(mine)
    if slot.outcome is not None and slot.outcome[1] not in slot.values:
        ask_value(core, slot.outcome[1])


# --- values by digest ----------------------------------------------------------------------------


def ask_value(core: Core, digest: bytes) -> None:
    """Ask everyone for the value with this digest: a quorum has accepted it."""
    slot = core.ending.slot
    slot.wanted.add(digest)
    core.broadcast(FetchValue(core.record.epoch, digest))


def on_fetch_value(core: Core, sender: int, message: FetchValue) -> None:
    """Show a value that I accepted."""
    value = core.ending.slot.values.get(message.value)
    if value is not None:
        core.send(sender, value)


def on_value(core: Core, sender: int, message: SlotValue) -> None:
    """Take a value that I asked for, known by its digest."""
    slot, digest = core.ending.slot, message.record.hash()
    if digest not in slot.wanted or message.record.seals != seals_digest(message.seals):
        core.refuse(sender, message, "not-asked")
        return
    slot.wanted.discard(digest)
    slot.values[digest] = message
    lead(core)
