"""The chain of epoch records: who the members are now, proven without trust in any replica.

Each record is decided by a quorum of the members of the one before, so whoever knows one record
for certain can check all that follow (epochs.md, Changing members). Old keys are the danger: a
removed member's key, stolen later, can sign another future for its old epoch. Whoever was away
therefore starts from a fresh anchor, the hash of the current record, signed by the admin key;
from genesis alone the chain proves only that no quorum of old keys was stolen.

Pure: no clock, no randomness, no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec
from msgspec import Struct

from dwcp.wire.decoding import decoder_of
from dwcp.wire.epochs import CertifiedRecord, slot_signing_bytes
from dwcp.wire.quorum import quorum
from dwcp.wire.records import EpochRecord, SignedGenesis, scope_of
from dwcp.wire.signing import Count, Hash, Scope, Signature, Signer, Verifier

STOLEN_KEYS = (
    "verified from genesis alone: this chain is as trustworthy as every key that any former "
    "member ever held; pass an anchor signed by the admin key to rule out stolen old keys"
)


class Anchor(Struct, frozen=True):
    """The hash of the record of `epoch`, signed with the cluster's admin key."""

    epoch: Count
    record: Hash
    sig: Signature

    def signing_bytes(self, genesis: bytes) -> bytes:
        """What the admin signs; `genesis` is the hash of the genesis record."""
        payload = self.epoch.to_bytes(8, "big") + self.record
        return Scope(genesis, self.record).signing_bytes("anchor", payload)


class Invitation(Struct, frozen=True):
    """What a new replica needs to join: genesis, the records since, and an anchor of the newest.

    With the anchor the records are as good as the admin's word; without one, stolen old keys could
    have made them.
    """

    genesis: SignedGenesis
    records: tuple[CertifiedRecord, ...] = ()
    anchor: Anchor | None = None


class RecordsFile(Struct, frozen=True, array_like=True, tag="records"):
    """The records after genesis as a file keeps them; a wire message holds some of them only."""

    records: tuple[CertifiedRecord, ...] = ()


_decode_file: Callable[[bytes], RecordsFile] = decoder_of(RecordsFile)


def records_file(certified: Iterable[CertifiedRecord]) -> bytes:
    """The bytes of a file of epoch records."""
    return msgspec.msgpack.encode(RecordsFile(tuple(certified)))


def read_records(file: bytes) -> tuple[CertifiedRecord, ...]:
    """What a file of epoch records holds, unchecked. Raises msgspec.DecodeError."""
    return _decode_file(file).records


def successor_fault(
    genesis: EpochRecord, previous: EpochRecord, certified: CertifiedRecord, verifier: Verifier
) -> str | None:
    """Why a record does not follow another, in a few words; None when it does."""
    record = certified.record
    if record.epoch != previous.epoch + 1 or record.previous != previous.hash():
        return f"record {record.epoch} does not follow record {previous.epoch}"
    if (record.cluster_id, record.admin) != (genesis.cluster_id, genesis.admin):
        return f"record {record.epoch} is of another cluster"
    if record.start_index < previous.start_index or record.leader >= len(record.members):
        return f"record {record.epoch} contradicts itself"
    if any(m >= len(record.members) for m in record.barred) or record.leader in record.barred:
        return f"record {record.epoch} contradicts itself"
    signed = slot_signing_bytes(
        scope_of(genesis, previous), "slot-commit", previous.epoch, certified.view, record.hash()
    )
    members = previous.members
    voters = [vote.member for vote in certified.votes]
    if len(set(voters)) != len(voters) or any(voter >= len(members) for voter in voters):
        return f"record {record.epoch} has votes of strangers, or one member's twice"
    if len(voters) < quorum(len(members), previous.trust):
        return f"record {record.epoch} has {len(voters)} votes, fewer than a quorum"
    for vote in certified.votes:
        if not verifier.verify(members[vote.member].identity, signed, vote.sig):
            return f"a signature on record {record.epoch} does not verify"
    return None


class RecordChain:
    """The records that were verified so far, from genesis on."""

    def __init__(self, genesis: EpochRecord, verifier: Verifier) -> None:
        assert genesis.epoch == 0, "a chain starts at genesis"
        self.genesis = genesis
        self.certified: list[CertifiedRecord] = []
        self._records = [genesis]
        self._verifier = verifier

    @property
    def current(self) -> EpochRecord:
        """The newest record."""
        return self._records[-1]

    @property
    def records(self) -> Sequence[EpochRecord]:
        """All of them; the position is the epoch."""
        return self._records

    def record(self, epoch: int) -> EpochRecord | None:
        """The record of an epoch, or None while it is not known."""
        return self._records[epoch] if 0 <= epoch < len(self._records) else None

    def extend(self, certified: Iterable[CertifiedRecord]) -> str | None:
        """Take the records that follow; why the first bad one does not hold, or None.

        Records that are known already are passed over.
        """
        for one in certified:
            if one.record.epoch <= self.current.epoch:
                continue
            fault = successor_fault(self.genesis, self.current, one, self._verifier)
            if fault is not None:
                return fault
            self.add(one)
        return None

    def add(self, certified: CertifiedRecord) -> None:
        """Take a record that was checked."""
        assert certified.record.epoch == len(self._records), "records come in order"
        self.certified.append(certified)
        self._records.append(certified.record)

    def anchor_fault(self, anchor: Anchor) -> str | None:
        """Why an anchor does not vouch for this chain; None when it does."""
        signed = anchor.signing_bytes(self.genesis.hash())
        if not self._verifier.verify(self.genesis.admin, signed, anchor.sig):
            return "the anchor's signature is not the admin's"
        record = self.record(anchor.epoch)
        if record is None:
            return f"the anchor names epoch {anchor.epoch}, the chain ends at {self.current.epoch}"
        if record.hash() != anchor.record:
            return f"epoch {anchor.epoch} of this chain is not the one that the admin signed"
        return None


def sign_anchor(genesis: EpochRecord, record: EpochRecord, signer: Signer) -> Anchor:
    """The anchor of a record, signed with the admin key."""
    unsigned = Anchor(record.epoch, record.hash(), bytes(64))
    return msgspec.structs.replace(
        unsigned, sig=signer.sign(unsigned.signing_bytes(genesis.hash()))
    )
