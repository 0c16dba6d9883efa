"""Votes and what a quorum of them proves.

A vote counts only when its signer is a member, its signature holds, and epoch, term, index and
hash match (the hash binds the batch digest and everything below). Votes are kept by what they
say, so that votes for different things never add up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from dwcp.wire.peer import Certificate, DoubleVote, Header, VoteKind, VoteSig, vote_signing_bytes
from dwcp.wire.records import EpochRecord
from dwcp.wire.signing import Scope, Verifier
from dwcp_replica.core.quorum import quorum


@dataclass(frozen=True, slots=True)
class Membership:
    """Who may vote in an epoch, and how their votes are checked."""

    record: EpochRecord
    scope: Scope
    verifier: Verifier

    @property
    def n(self) -> int:
        """The number of members."""
        return len(self.record.members)

    @property
    def quorum(self) -> int:
        """The votes that make a certificate."""
        return quorum(self.n, self.record.trust)

    def decides(self, kind: VoteKind) -> bool:
        """True when a certificate of this kind makes its entry final for good: executed, answered.

        Under Byzantine trust the second one does, under Crash trust the first; a stable
        checkpoint stands for either.
        """
        return kind != "prepare" or self.record.trust == "Crash"

    def key(self, member: int) -> bytes | None:
        """The identity key of a member number, or None for a stranger."""
        members = self.record.members
        return members[member].identity if 0 <= member < len(members) else None

    def signed(self, member: int, message: bytes, sig: bytes) -> bool:
        """True when `member` is one of us and signed `message`."""
        key = self.key(member)
        return key is not None and self.verifier.verify(key, message, sig)

    def header_holds(self, header: Header) -> bool:
        """True when the header is of this epoch and its term's leader signed it."""
        if header.epoch != self.record.epoch:
            return False
        leader = self.record.primary(header.term)
        return self.signed(leader, header.signing_bytes(self.scope), header.sig)

    def certificate_holds(self, certificate: Certificate) -> bool:
        """True when a quorum of distinct members voted, each signature verified."""
        header = certificate.header
        is_checkpoint = certificate.kind == "checkpoint"
        if len(certificate.state) != (32 if is_checkpoint else 0):
            return False
        if not self.header_holds(header):
            return False
        message = vote_signing_bytes(self.scope, certificate.kind, header, certificate.state)
        voters = [vote.member for vote in certificate.votes]
        if len(set(voters)) != len(voters):
            return False
        if certificate.kind == "prepare":
            # the leader's signature on the header is its vote
            voters = [*voters, self.record.primary(header.term)]
        if len(set(voters)) < self.quorum:
            return False
        return all(self.signed(vote.member, message, vote.sig) for vote in certificate.votes)


@dataclass(frozen=True, slots=True)
class Vote:
    """A verified vote: what it says, and the signature that proves it."""

    header: Header
    hash: bytes
    state: bytes
    sig: bytes

    @property
    def said(self) -> tuple[bytes, bytes]:
        """What must be equal for two votes to add up: entry hash and state digest."""
        return (self.hash, self.state)


@dataclass(slots=True)
class VoteBook:
    """Verified votes of one kind and term: index -> member -> vote.

    Bounded: the caller takes only indexes inside its water marks, and one member has at most
    one vote per index (the first; a second, different one is a proof against it).
    """

    kind: VoteKind
    votes: dict[int, dict[int, Vote]] = field(default_factory=dict)

    def add(self, member: int, vote: Vote) -> bool:
        """Keep a verified vote; False when this member has voted at this index before."""
        at_index = self.votes.setdefault(vote.header.index, {})
        if member in at_index:
            return False
        at_index[member] = vote
        return True

    def contradiction(self, member: int, vote: Vote) -> DoubleVote | None:
        """The proof that this vote makes together with an earlier one of the member, if any."""
        held = self.votes.get(vote.header.index, {}).get(member)
        if held is None or held.said == vote.said:
            return None
        return DoubleVote(
            kind=self.kind,
            member=member,
            first=held.header,
            first_state=held.state,
            first_sig=held.sig,
            second=vote.header,
            second_state=vote.state,
            second_sig=vote.sig,
        )

    def matching(self, index: int, said: tuple[bytes, bytes]) -> list[VoteSig]:
        """The votes at `index` that say exactly this, by member."""
        at_index = self.votes.get(index, {})
        return [
            VoteSig(member=member, sig=vote.sig)
            for member, vote in sorted(at_index.items())
            if vote.said == said
        ]

    def said(self, index: int) -> Iterator[tuple[bytes, bytes]]:
        """The different things said at `index`, in a fixed order."""
        yield from sorted({vote.said for vote in self.votes.get(index, {}).values()})

    def forget_upto(self, index: int) -> None:
        """Drop votes at or below `index`."""
        for old in [i for i in self.votes if i <= index]:
            del self.votes[old]

    def clear(self) -> None:
        """Drop everything: another term has begun."""
        self.votes.clear()

    def __len__(self) -> int:
        return sum(len(at_index) for at_index in self.votes.values())
