"""When a member makes its next identity key, and what it says when it does not."""

from __future__ import annotations

from typing import Final

from dwcp.identity import Ed25519Verifier
from dwcp.wire.keys import KeyRequest, request_fault
from dwcp.wire.records import EpochRecord, scope_of
from dwcp_replica.node.orders import Refusal

_SENTENCES: Final = {
    "key-epoch": "the request is for epoch {asked}, and this replica is in epoch {epoch}: sign it "
    "for the present record",
    "key-signature": "the request does not carry the signature of the cluster's admin key under "
    "the record of epoch {epoch}",
    "key-member": "the request is for {member}, and this replica is {me}",
    "key-settling": "the last change of this key is not finished: a quorum is not ready in epoch "
    "{epoch} yet",
    "key-mute": "this replica signs nothing ({mute}): its key can change when it votes again",
}


def key_refusal(
    request: KeyRequest, records: tuple[EpochRecord, EpochRecord], me: int | None,
    *, settling: bool, mute: str | None,
) -> Refusal | None:  # fmt: skip
    """Why no key is made, as a word and a sentence; `records` are genesis and the present one."""
    genesis, record = records
    scope = scope_of(genesis, record)
    name = "no member" if me is None else record.members[me].name
    reason = request_fault(record, scope, request, Ed25519Verifier())
    if reason is None and name != request.member:
        reason = "key-member"
    if reason is None and settling:
        reason = "key-settling"
    if reason is None and mute is not None:
        reason = "key-mute"
    if reason is None:
        return None
    said = _SENTENCES[reason].format(
        asked=request.epoch, epoch=record.epoch, member=request.member, me=name, mute=mute
    )
    return reason, said
