"""Which orders of the admin a replica takes, and what it says to the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dwcp.identity import Ed25519Verifier
from dwcp.wire.records import EpochRecord, Member, scope_of
from dwcp.wire.switch import AdminSwitch
from dwcp_replica.core.certificates import Membership
from dwcp_replica.core.epochs.triggers import switch_fault

Refusal = tuple[str, str]
"""An enumerated word, and a sentence."""

_SENTENCES: Final = {
    "switch-epoch": "the order is for epoch {order}, and this replica is in epoch {epoch}: "
    "sign it for the present record",
    "switch-signature": "the order does not carry the signature of the cluster's admin key under "
    "the record of epoch {epoch}",
    "switch-members": "the members of an order have different names and keys",
    "switch-count": "{n} members do not do: under Byzantine trust it takes 3f+1 (4, 7, 10, ...), "
    "under Crash trust 1, 3, 5, ...",
    "switch-protocol": "no replica can run {protocol} in the next epoch yet",
}


def order_fault(records: Sequence[EpochRecord], order: AdminSwitch) -> Refusal | None:
    """Why an order is refused; `records` are all from genesis to the present one."""
    genesis, record = records[0], records[-1]
    membership = Membership(record, scope_of(genesis, record), Ed25519Verifier())
    if (reason := switch_fault(membership, order)) is not None:
        words = {
            "order": order.epoch, "epoch": record.epoch, "n": len(order.members),
            "protocol": order.protocol,
        }  # fmt: skip
        said = _SENTENCES.get(reason, "the order does not fit epoch {epoch}")
        return reason, said.format(**words)
    for member in order.members:
        if (reused := _reused(records, member)) is not None:
            return "switch-name", reused
    return None


def _reused(records: Sequence[EpochRecord], member: Member) -> str | None:
    """Why a member can not have this name; one that keeps its certificate changes its key."""
    for record in records:
        number = record.member_named(member.name)
        known = None if number is None else record.members[number]
        if known is None or known.certificate == member.certificate:
            continue
        return (
            f"the name {member.name} was another member's in epoch {record.epoch}: names are never "
            "used again, so give the new member a new one"
        )
    return None
