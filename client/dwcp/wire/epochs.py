"""Messages that end an epoch and begin the next (epochs.md, Switching).

| epochs.md | here |
|---|---|
| PANIC | `Panic`; f+1 of them are a trigger, `Panics` |
| SWITCH entry | `switch.Switch` in a batch; shown with its CC it is a trigger, `SwitchProof` |
| SEAL | `Seal`: what a replica holds when it ends the epoch, with the trigger inside |
| the slot's pre-prepare, NEW-VIEW | `SlotProposal`: above view 0 with a quorum of `SlotChange` |
| the slot's PREPARE, COMMIT | `SlotVote` |
| the slot's VIEW-CHANGE | `SlotChange`, with the highest prepared certificate |
| the epoch record with its q-certificate | `CertifiedRecord`, sent in `Records` |
| READY | `Ready` |

The slot's views start at 0. Everything here is signed under the record of the epoch that ends,
but for `Ready`, which is signed under the record that begins.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from dwcp.wire.chain import (
    Certificate,
    ElectionRef,
    Entry,
    Equivocation,
    Fork,
    Header,
    Index,
    MemberId,
    VoteSig,
)
from dwcp.wire.records import EpochRecord
from dwcp.wire.signing import Count, Hash, Scope, Signature, digest
from dwcp.wire.switch import AdminSwitch, SwitchRequest

VOTES_MAX = 1024

# --- triggers ----------------------------------------------------------------------------------


class Panic(Struct, frozen=True, array_like=True, tag="panic"):
    """A member asks that `epoch` ends: it sees no progress, or what can not be."""

    epoch: Count
    member: MemberId
    sig: Signature

    def signing_bytes(self, scope: Scope) -> bytes:
        """What the member signs."""
        return scope.signing_bytes("panic", self.epoch.to_bytes(8, "big"))


class Panics(Struct, frozen=True, array_like=True, tag="panics"):
    """f+1 members' PANICs."""

    panics: Annotated[tuple[Panic, ...], Meta(max_length=VOTES_MAX)]


class SwitchProof(Struct, frozen=True, array_like=True, tag="switch-proof"):
    """A committed SWITCH entry: `links` lead from it up to the entry of the certificate."""

    entry: Entry
    links: Annotated[tuple[Header, ...], Meta(max_length=8192)]
    certificate: Certificate


Trigger = Panics | Equivocation | Fork | SwitchProof

# --- the seal ----------------------------------------------------------------------------------


class Seal(Struct, frozen=True, array_like=True, tag="seal"):
    """What a member holds when it ends `epoch`; it signs nothing in the epoch's log after it.

    Fields as in a VIEW-CHANGE, and the trigger that ended the epoch. The bytes never change.
    """

    epoch: Count
    checkpoint: Certificate | None
    log: tuple[Header, ...]
    cc: Certificate | None
    branch: tuple[Header, ...]
    elections: tuple[ElectionRef, ...]
    trigger: Trigger
    member: MemberId
    sig: Signature

    def signing_bytes(self, scope: Scope) -> bytes:
        """What the member signs: every field but the signature."""
        unsigned = msgspec.structs.replace(self, sig=bytes(64))
        return scope.signing_bytes("seal", msgspec.msgpack.encode(unsigned))


def seals_digest(seals: tuple[Seal, ...]) -> bytes:
    """What a record binds of its SEALs: 32 bytes."""
    return digest("seals", msgspec.msgpack.encode(seals))


# --- the slot ----------------------------------------------------------------------------------

SlotPhase = Literal["slot-prepare", "slot-commit"]
"""The two kinds of votes; also the domain that a vote is signed in."""


def slot_signing_bytes(
    scope: Scope, kind: SlotPhase | Literal["slot-proposal"], epoch: int, view: int, value: bytes
) -> bytes:
    """What is signed in the slot; `value` is the digest of the whole record."""
    payload = epoch.to_bytes(8, "big") + view.to_bytes(8, "big") + value
    return scope.signing_bytes(kind, payload)


class SlotVote(Struct, frozen=True, array_like=True, tag="slot-vote"):
    """PREPARE or COMMIT of one value in one view of the slot."""

    epoch: Count
    view: Count
    value: Hash
    phase: SlotPhase
    member: MemberId
    sig: Signature


class SlotCertificate(Struct, frozen=True, array_like=True):
    """A quorum's votes of one phase for one value in one view."""

    phase: SlotPhase
    epoch: Count
    view: Count
    value: Hash
    votes: Annotated[tuple[VoteSig, ...], Meta(max_length=VOTES_MAX)]


class SlotChange(Struct, frozen=True, array_like=True, tag="slot-change"):
    """The slot's VIEW-CHANGE: below `view` its member signs nothing more in this slot."""

    epoch: Count
    view: Annotated[int, Meta(ge=1, le=2**62)]
    prepared: SlotCertificate | None
    member: MemberId
    sig: Signature

    def signing_bytes(self, scope: Scope) -> bytes:
        """What the member signs: every field but the signature."""
        unsigned = msgspec.structs.replace(self, sig=bytes(64))
        return scope.signing_bytes("slot-change", msgspec.msgpack.encode(unsigned))


class SlotValue(Struct, frozen=True, array_like=True, tag="slot-value"):
    """A record with the SEALs that it follows from."""

    record: EpochRecord
    seals: Annotated[tuple[Seal, ...], Meta(max_length=VOTES_MAX)]


class SlotProposal(Struct, frozen=True, array_like=True, tag="slot-proposal"):
    """The slot primary's proposal in `view`; above view 0 with the quorum that asked for it."""

    epoch: Count
    view: Count
    value: SlotValue
    changes: Annotated[tuple[SlotChange, ...], Meta(max_length=VOTES_MAX)]
    member: MemberId
    sig: Signature


class FetchValue(Struct, frozen=True, array_like=True, tag="fetch-value"):
    """Asks for the value with this digest (`SlotValue` is the answer)."""

    epoch: Count
    value: Hash


class CertifiedRecord(Struct, frozen=True, array_like=True):
    """An epoch record with the quorum of COMMITs, in one view of the slot, that decided it."""

    record: EpochRecord
    view: Count
    votes: Annotated[tuple[VoteSig, ...], Meta(max_length=VOTES_MAX)]


# --- after the decision ------------------------------------------------------------------------


class Records(Struct, frozen=True, array_like=True, tag="records"):
    """Consecutive epoch records."""

    records: Annotated[tuple[CertifiedRecord, ...], Meta(max_length=256)]


class Ready(Struct, frozen=True, array_like=True, tag="ready"):
    """A member holds the start state of `epoch` and takes part in it."""

    epoch: Count
    member: MemberId
    sig: Signature

    def signing_bytes(self, scope: Scope) -> bytes:
        """What the member signs."""
        return scope.signing_bytes("ready", self.epoch.to_bytes(8, "big"))


class FetchHistory(Struct, frozen=True, array_like=True, tag="fetch-history"):
    """Asks for entries of ended epochs from `start` on."""

    start: Index


class History(Struct, frozen=True, array_like=True, tag="history"):
    """Consecutive entries of one ended epoch.

    `links` lead from the last entry up to the certificate's, or, without a certificate, to the
    entry at which the next epoch's record starts.
    """

    epoch: Count
    entries: tuple[Entry, ...]
    links: tuple[Header, ...]
    certificate: Certificate | None


class FetchEpoch(Struct, frozen=True, array_like=True, tag="fetch-epoch"):
    """A replica that lost the tail of its log asks how far epochs have come."""

    nonce: Hash
    epoch: Count


class EpochBound(Struct, frozen=True, array_like=True, tag="epoch-bound"):
    """The answer: the records after the asker's, and a prepared record of the one that follows."""

    nonce: Hash
    records: Annotated[tuple[CertifiedRecord, ...], Meta(max_length=256)]
    epoch: Count
    prepared: SlotCertificate | None


EpochMessage = (
    Panic
    | Panics
    | SwitchProof
    | SwitchRequest
    | AdminSwitch
    | Seal
    | SlotProposal
    | SlotVote
    | SlotChange
    | FetchValue
    | SlotValue
    | Records
    | Ready
    | FetchHistory
    | History
    | FetchEpoch
    | EpochBound
)
