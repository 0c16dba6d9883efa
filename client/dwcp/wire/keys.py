"""A member's next identity key: the admin asks for it, and the member shows it, signed with both.

The next epoch record names it under the member's name; until then everything is signed with the
present one, which is erased once a quorum is ready in that epoch (docs/members.md).
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from dwcp.wire.records import EpochRecord, Name
from dwcp.wire.signing import SIGNATURE_BYTES, Count, PublicKey, Scope, Signature, Signer, Verifier

_UNSIGNED: Final = bytes(SIGNATURE_BYTES)


class KeyRequest(Struct, frozen=True, array_like=True, tag="key-request"):
    """The admin's wish that a member make its next key, signed under the record of `epoch`."""

    epoch: Count
    member: Name
    sig: Signature

    def signing_bytes(self, scope: Scope) -> bytes:
        """What the admin signs."""
        payload = self.epoch.to_bytes(8, "big") + self.member.encode()
        return scope.signing_bytes("key-request", payload)


class NextKey(Struct, frozen=True, array_like=True, tag="next-key"):
    """A member's next key; `sig` is by its present key, `proof` by the next one."""

    epoch: Count
    member: Name
    identity: PublicKey
    sig: Signature
    proof: Signature

    def signing_bytes(self, scope: Scope) -> bytes:
        """What both keys sign."""
        payload = self.epoch.to_bytes(8, "big") + self.identity + self.member.encode()
        return scope.signing_bytes("next-key", payload)


def request_key(record: EpochRecord, scope: Scope, member: str, admin: Signer) -> KeyRequest:
    """Ask a member of the present record for its next key."""
    unsigned = KeyRequest(record.epoch, member, _UNSIGNED)
    return msgspec.structs.replace(unsigned, sig=admin.sign(unsigned.signing_bytes(scope)))


def show_key(request: KeyRequest, scope: Scope, present: Signer, following: Signer) -> NextKey:
    """Answer a request."""
    unsigned = NextKey(request.epoch, request.member, following.public_key, _UNSIGNED, _UNSIGNED)
    signed = unsigned.signing_bytes(scope)
    return msgspec.structs.replace(unsigned, sig=present.sign(signed), proof=following.sign(signed))


def request_fault(
    record: EpochRecord, scope: Scope, request: KeyRequest, verifier: Verifier
) -> str | None:
    """Why a request is refused, as an enumerated word; None when the admin made it, for now."""
    if request.epoch != record.epoch:
        return "key-epoch"
    signed = request.signing_bytes(scope)
    return None if verifier.verify(record.admin, signed, request.sig) else "key-signature"


def shown_fault(
    record: EpochRecord, scope: Scope, request: KeyRequest, shown: NextKey, verifier: Verifier
) -> str | None:
    """Why an answer does not hold, in a sentence; None when it is that member's next key."""
    if (shown.epoch, shown.member) != (request.epoch, request.member):
        return "it answers another request"
    number = record.member_named(shown.member)
    if number is None:
        return f"{shown.member} is no member of epoch {record.epoch}"
    if any(shown.identity == member.identity for member in record.members):
        return "its next key is a member's present one"
    signed = shown.signing_bytes(scope)
    if not verifier.verify(record.members[number].identity, signed, shown.sig):
        return "the present key's signature on the next one does not verify"
    if not verifier.verify(shown.identity, signed, shown.proof):
        return "the next key's own signature does not verify"
    return None
