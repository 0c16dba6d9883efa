"""What ends an epoch, and how each reason is proven (epochs.md, Switching, step 1).

Nothing here believes one member: a SWITCH carries f+1 members' signed requests or the admin's
order, PANICs count from f+1 members on, and equivocation is two signatures of one leader.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import msgspec

from dwcp.wire.envelope import batch_digest, decode_batch
from dwcp.wire.epochs import Panics, SwitchProof, Trigger
from dwcp.wire.records import EpochRecord, Member
from dwcp.wire.switch import AdminSwitch, RequestedSwitch, Switch
from dwcp_replica.core import evidence
from dwcp_replica.core.certificates import Membership
from dwcp_replica.core.quorum import faults

PROTOCOLS: Final = frozenset({"pbft", "raft"})
"""The protocols that this engine can drive."""


def can_end(record: EpochRecord) -> bool:
    """True when this package ends epochs of this kind: not under Crash trust yet."""
    return record.trust == "Byzantine"


def doubters(membership: Membership) -> int:
    """How many members' word shows that an honest one agrees: f+1; a majority under Crash trust."""
    if membership.record.trust == "Crash":
        return membership.quorum
    return faults(membership.n) + 1


def switch_fault(membership: Membership, switch: Switch) -> str | None:
    """Why a SWITCH must not be acknowledged, as an enumerated word; None when it is valid."""
    if switch.protocol not in PROTOCOLS:
        return "switch-protocol"
    if not can_end(membership.record):
        return "switch-trust"
    if isinstance(switch, AdminSwitch):
        return _order_fault(membership, switch)
    return _requests_fault(membership, switch)


def _order_fault(membership: Membership, order: AdminSwitch) -> str | None:
    record = membership.record
    if order.epoch != record.epoch:
        return "switch-epoch"
    signed = order.signing_bytes(membership.scope)
    if not membership.verifier.verify(record.admin, signed, order.sig):
        return "switch-signature"
    return members_fault(order.members, record.trust)


def members_fault(members: tuple[Member, ...], trust: str) -> str | None:
    """Why these can not be the members of a record; None when they can."""
    n = len(members)
    if len({m.name for m in members}) != n or len({m.identity for m in members}) != n:
        return "switch-members"
    if trust == "Byzantine" and (n < 4 or (n - 1) % 3):
        return "switch-count"
    return None if n else "switch-count"


def _requests_fault(membership: Membership, switch: RequestedSwitch) -> str | None:
    record = membership.record
    if record.forced is not None and switch.protocol not in (record.forced, record.protocol):
        return "switch-forced"
    askers = [request.member for request in switch.requests]
    if len(set(askers)) != len(askers) or len(askers) < doubters(membership):
        return "switch-requests"
    for request in switch.requests:
        if request.epoch != membership.record.epoch:
            return "switch-epoch"
        signed = request.signing_bytes(membership.scope)
        if request.protocol != switch.protocol or not membership.signed(
            request.member, signed, request.sig
        ):
            return "switch-signature"
    return None


def holds(membership: Membership, trigger: Trigger) -> bool:
    """True when a trigger proves that the epoch of `membership` is to end."""
    if not can_end(membership.record):
        return False
    match trigger:
        case Panics():
            return _panics_hold(membership, trigger)
        case SwitchProof():
            return _switch_holds(membership, trigger)
        case _:
            return evidence.proven_liar(membership, trigger) is not None


def _panics_hold(membership: Membership, trigger: Panics) -> bool:
    members = [panic.member for panic in trigger.panics]
    if len(set(members)) != len(members) or len(members) < doubters(membership):
        return False
    return all(
        panic.epoch == membership.record.epoch
        and membership.signed(panic.member, panic.signing_bytes(membership.scope), panic.sig)
        for panic in trigger.panics
    )


def _switch_holds(membership: Membership, proof: SwitchProof) -> bool:
    """The entry holds a valid SWITCH, and the certificate covers it through the chain."""
    header = proof.entry.header
    if batch_digest(proof.entry.body) != header.batch:
        return False
    try:
        batch = decode_batch(proof.entry.body)
    except msgspec.DecodeError:
        return False
    if batch.switch is None or switch_fault(membership, batch.switch) is not None:
        return False
    if not all(membership.header_holds(shown) for shown in (header, *proof.links)):
        return False
    run = (header, *proof.links)
    linked = all(
        above.index == below.index + 1 and above.prev == below.hash()
        for below, above in pairwise(run)
    )
    top = proof.certificate.header
    return (
        linked and top.hash() == run[-1].hash() and membership.certificate_holds(proof.certificate)
    )
