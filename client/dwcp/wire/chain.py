"""The chain's parts: headers, entries, certificates, and proofs that a member lied.

What messages between replicas (`peer`, `epochs`) are made of. One chain entry is a header and a
body. The term's leader signs the header (epochs.md: APPEND); every vote names an entry by its
hash, and the hash covers all entries below it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from dwcp.wire.signing import Count, Hash, Scope, Signature, digest

MemberId = Annotated[int, Meta(ge=0, lt=1024)]
"""A member's position in its epoch's record."""
View = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Index = Annotated[int, Meta(ge=1, le=2**63 - 1)]


class Header(Struct, frozen=True, array_like=True):
    """APPEND: one entry's place in the chain, signed by its term's leader.

    `batch` is the digest of the body, `prev` the hash of entry index-1.
    """

    epoch: Count
    term: View
    index: Index
    batch: Hash
    prev: Hash
    sig: Signature

    def hash(self) -> bytes:
        """h(i) = H(h(i-1), epoch, term, i, batch digest)."""
        return digest("entry", self.prev, self.signed_payload())

    def signed_payload(self) -> bytes:
        """The fields that the signature covers, at fixed widths."""
        return b"".join(
            (
                self.epoch.to_bytes(8, "big"),
                self.term.to_bytes(8, "big"),
                self.index.to_bytes(8, "big"),
                self.batch,
                self.prev,
            )
        )

    def signing_bytes(self, scope: Scope) -> bytes:
        """What the leader signs."""
        return scope.signing_bytes("append", self.signed_payload())


class Entry(Struct, frozen=True, array_like=True):
    """A header with its body (the MessagePack of a Batch)."""

    header: Header
    body: bytes


VoteKind = Literal["prepare", "commit", "checkpoint"]


def vote_signing_bytes(
    scope: Scope, kind: VoteKind, header: Header, state: bytes | None = None
) -> bytes:
    """What a voter signs for an entry; `state` is the state digest of a checkpoint vote."""
    payload = b"".join(
        (
            header.epoch.to_bytes(8, "big"),
            header.term.to_bytes(8, "big"),
            header.index.to_bytes(8, "big"),
            header.hash(),
            state or b"",
        )
    )
    return scope.signing_bytes(kind, payload)


class VoteSig(Struct, frozen=True, array_like=True):
    """One member's signature in a certificate."""

    member: MemberId
    sig: Signature


State = Annotated[bytes, Meta(max_length=32)]
"""The state digest of a checkpoint: 32 bytes; empty elsewhere."""


class Certificate(Struct, frozen=True, array_like=True):
    """A quorum's votes of one kind for one entry.

    prepare: the first certificate, CC ("prepared"): the leader's signature on the header
    counts as its own vote. commit: the second certificate ("final"). checkpoint: a stable
    checkpoint, with the digest of the state after the entry.
    """

    kind: VoteKind
    header: Header
    state: State
    votes: Annotated[tuple[VoteSig, ...], Meta(max_length=1024)]


class ElectionRef(Struct, frozen=True, array_like=True):
    """Names the election certificate of a term by its digest."""

    term: View
    digest: Hash


class Equivocation(Struct, frozen=True, array_like=True, tag="equivocation"):
    """Two signed headers of one (epoch, term, index): proof against that term's leader."""

    first: Header
    second: Header


class DoubleVote(Struct, frozen=True, array_like=True, tag="double-vote"):
    """Two signed votes of one kind by one member at one (epoch, term, index): proof against it.

    `first_state` and `second_state` are the state digests of checkpoint votes, else empty.
    """

    kind: VoteKind
    member: MemberId
    first: Header
    first_state: State
    first_sig: Signature
    second: Header
    second_state: State
    second_sig: Signature


class Fork(Struct, frozen=True, array_like=True, tag="fork"):
    """Two entries of one (epoch, term) on chains that have parted: proof against its leader.

    `other` is a run of linked headers. It begins at the index of `first` with another hash, and
    its last header is of the same term. (Two headers at one index miss a primary that began one
    view twice, from starts of different length; epochs.md, Equivocation proof.)
    """

    first: Header
    other: Annotated[tuple[Header, ...], Meta(min_length=1, max_length=8192)]


Evidence = Equivocation | DoubleVote | Fork
