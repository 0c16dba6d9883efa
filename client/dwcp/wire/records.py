"""Epoch records: who the members are, which keys they hold, which protocol they run.

Genesis is epoch record 0. It is made once, signed by the admin key and by every member,
and never changes (epochs.md, Bootstrapping).
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from dwcp.wire.signing import (
    ZERO_HASH,
    Count,
    Hash,
    PublicKey,
    Scope,
    Signature,
    Verifier,
    digest,
    unscoped,
)

Trust = Literal["Byzantine", "Crash"]
Protocol = Literal["pbft", "raft"]
Mode = Literal["Datacenter", "Hybrid", "Internet"]
Name = Annotated[str, Meta(min_length=1, max_length=63, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
"""A DNS label, as Kubernetes names are."""

CLUSTER_ID_BYTES: Final = 16


class Member(Struct, frozen=True, array_like=True):
    """A replica: its name (never reused), keys and addresses.

    `identity` signs; `certificate` is the SHA-256 of its TLS certificate (DER).
    `peer` is "host:port" of the peer listener, `client` the base URL of the client API.
    """

    name: Name
    identity: PublicKey
    certificate: Hash
    peer: str
    client: str


class ClientIdentity(Struct, frozen=True, array_like=True):
    """A client that may sign envelopes."""

    name: Name
    key: PublicKey


class ModePolicy(Struct, frozen=True, array_like=True):
    """How the members choose the mode; the thresholds are the brief's. All must hold the same.

    `detect` False: the first mode stays until somebody orders another. `first`: the mode that the
    cluster begins in; `forced`: it is held until it is released; `pinned`: for ever.

    Below `rtt_low_us` with `rate_bps` or more: Datacenter; above `rtt_high_us`, or below
    `rate_bps`: Internet; otherwise Hybrid. A value must be `hysteresis_permille` thousandths of a
    threshold beyond it, during `dwell_ms`, and `cooldown_ms` after the last switch. Links are
    measured every `measure_ms`, a short one with a probe of `probe_bytes`.
    """

    detect: bool = False
    first: Mode = "Internet"
    forced: bool = False
    pinned: bool = False
    rtt_low_us: Annotated[int, Meta(ge=1, le=3_600_000_000)] = 10_000
    rtt_high_us: Annotated[int, Meta(ge=1, le=3_600_000_000)] = 50_000
    rate_bps: Count = 1_000_000_000
    hysteresis_permille: Annotated[int, Meta(ge=0, le=999)] = 100
    dwell_ms: Annotated[int, Meta(ge=0, le=86_400_000)] = 20_000
    cooldown_ms: Annotated[int, Meta(ge=0, le=86_400_000)] = 30_000
    measure_ms: Annotated[int, Meta(ge=50, le=3_600_000)] = 10_000
    probe_bytes: Annotated[int, Meta(ge=0, le=4_194_304)] = 1_048_576


class Parameters(Struct, frozen=True, array_like=True):
    """What all members and clients must hold alike; counts are log entries, times milliseconds.

    `fast_reads`: reads may skip the log, and everything else waits for quorum(n) equal replies.
    `modes`: how links are measured, and what follows from it.
    """

    checkpoint_interval: Annotated[int, Meta(ge=1, le=1000)] = 100
    request_timeout_ms: Annotated[int, Meta(ge=1)] = 2000
    max_clock_skew_ms: Annotated[int, Meta(ge=1)] = 30_000
    fast_reads: bool = False
    modes: ModePolicy = ModePolicy()


class EpochRecord(Struct, frozen=True, array_like=True):
    """One epoch of a cluster. The position in `members` is a member's number in its messages.

    `start_index`, `start_hash` and `start_term` say where the epoch's log begins: 0, the
    cluster id's digest and 0 in genesis; the term is that of the entry in its own epoch.
    `leader` leads view 1 (Raft: term 1). `previous` is the hash of the record before, `seals` the
    digest of the SEALs from which this record follows; both are zero in genesis, but that
    `previous` names the Origin of a cluster that was made from a backup. The members
    numbered in `barred` were proven to have lied as leaders, and never lead in this epoch.
    `forced`: the protocol that the admin holds until it is released; a fail-over may run another.
    """

    cluster_id: Annotated[bytes, Meta(min_length=CLUSTER_ID_BYTES, max_length=CLUSTER_ID_BYTES)]
    cluster: Name
    namespace: Name
    epoch: Count
    protocol: Protocol
    trust: Trust
    members: tuple[Member, ...]
    clients: tuple[ClientIdentity, ...]
    admin: PublicKey
    parameters: Parameters
    start_index: Count
    start_hash: Hash
    leader: Count
    start_term: Count = 0
    previous: Hash = ZERO_HASH
    seals: Hash = ZERO_HASH
    barred: tuple[Count, ...] = ()
    forced: Protocol | None = None

    def hash(self) -> bytes:
        """Names the record: 32 bytes over its canonical encoding."""
        return digest("epoch-record", msgspec.msgpack.encode(self))

    def primary(self, view: int) -> int:
        """The member that leads `view` (views start at 1); in Raft, the owner of the term."""
        assert view >= 1, f"views start at 1, got {view}"
        n = len(self.members)
        if not self.barred:
            return (self.leader + view - 1) % n
        able = [m for k in range(n) if (m := (self.leader + k) % n) not in self.barred]
        return able[(view - 1) % len(able)]

    def member_with(self, identity: bytes) -> int | None:
        """The number of the member with this key, or None."""
        return next((i for i, m in enumerate(self.members) if m.identity == identity), None)

    def member_named(self, name: str) -> int | None:
        """The number of the member with this name, or None."""
        return next((i for i, m in enumerate(self.members) if m.name == name), None)


class Origin(Struct, frozen=True, array_like=True):
    """Where a cluster took its first state from: the final entry of an earlier cluster.

    `genesis` and `record` are hashes of that cluster's genesis and of its record of `epoch`, the
    newest that was shown; `entry` is the hash of its log's entry `index`. `state` is the digest of
    the state that the cluster begins with, but for its own genesis' hash in it, which is zero.
    `loss` is empty, or what the admin confirmed may be lost when a quorum was.
    """

    genesis: Hash
    epoch: Count
    record: Hash
    index: Count
    entry: Hash
    state: Hash
    loss: Annotated[str, Meta(max_length=1024)] = ""

    def hash(self) -> bytes:
        """Names the origin; the genesis record that follows carries it as `previous`."""
        return digest("origin", msgspec.msgpack.encode(self))


class SignedGenesis(Struct, frozen=True, array_like=True):
    """Genesis with the admin's signature and the members' (by member number, b"" while missing).

    `origin` is None for a cluster that began empty.
    """

    record: EpochRecord
    admin_sig: Signature
    member_sigs: tuple[bytes, ...]
    origin: Origin | None = None


class Identity(Struct, frozen=True):
    """What a waiting replica shows of itself (JSON; bytes in base64).

    `proof` is its signature over itself, `mac` ties it to the one-time token that its
    creator gave it: HMAC-SHA256 over the same bytes.
    """

    name: str
    identity: PublicKey
    certificate: Hash
    proof: Signature
    mac: Hash

    def claim(self) -> bytes:
        """The bytes that proof and MAC cover."""
        return unscoped("identity", self.name.encode() + self.identity + self.certificate)


def start_hash(cluster_id: bytes) -> bytes:
    """h(0) of a new cluster's chain."""
    return digest("start", cluster_id)


def genesis_signing_bytes(record: EpochRecord) -> bytes:
    """What the admin and every member sign to start a cluster."""
    return unscoped("genesis", record.hash())


def scope_of(genesis: EpochRecord, record: EpochRecord) -> Scope:
    """The scope of signatures made under `record` in the cluster that `genesis` began."""
    return Scope(genesis.hash(), record.hash())


def encode_record(record: EpochRecord) -> bytes:
    """The canonical bytes of a record."""
    return msgspec.msgpack.encode(record)


def check_genesis(signed: SignedGenesis, verifier: Verifier) -> str | None:
    """Why this genesis does not hold, in one sentence; None when it does.

    Member signatures may still be missing; those present must verify.
    """
    record = signed.record
    n = len(record.members)
    message = genesis_signing_bytes(record)
    if record.epoch != 0 or record.start_index != 0 or record.start_term != 0:
        return "a genesis record is epoch 0 and starts at index 0"
    if record.seals != ZERO_HASH or record.barred:
        return "a genesis record follows no SEALs and bars nobody"
    if record.previous != (ZERO_HASH if signed.origin is None else signed.origin.hash()):
        return "a genesis record follows nothing, or the origin that is shown with it"
    if record.start_hash != start_hash(record.cluster_id):
        return "the genesis record's start hash is not that of its cluster id"
    if len({m.name for m in record.members}) != n or len({m.identity for m in record.members}) != n:
        return "two members of the genesis record share a name or a key"
    if problem := members_problem(n, record.trust):
        return problem
    if record.leader >= n:
        return f"the genesis record's leader is member {record.leader} of {n}"
    if not verifier.verify(record.admin, message, signed.admin_sig):
        return "the admin's signature on the genesis record does not verify"
    if len(signed.member_sigs) != n:
        return f"the genesis has {len(signed.member_sigs)} signature places for {n} members"
    for member, sig in zip(record.members, signed.member_sigs, strict=True):
        if sig and not verifier.verify(member.identity, message, sig):
            return f"the signature of member {member.name} on the genesis does not verify"
    return None


def members_problem(n: int, trust: Trust) -> str | None:
    """Why this many members do not do under this trust; None when they do."""
    if trust == "Crash":
        if n % 2:
            return None
        return f"under Crash trust a genesis record needs 1, 3, 5, ... members; this one has {n}"
    if n >= 4 and (n - 1) % 3 == 0:
        return None
    return f"a genesis record needs 3f+1 members, at least 4; this one has {n}"


def is_complete(signed: SignedGenesis) -> bool:
    """True when every member has signed."""
    return all(signed.member_sigs)
