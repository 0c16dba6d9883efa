"""COMMITTED: the answer under Crash trust, with the certificate that makes it safe (epochs.md).

One replica's reply is enough there, because it shows that a majority holds the entry. Whoever has
executed the entry may send it, not only the leader: the certificate carries the leader's signature.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from dwcp.wire.chain import Certificate, Header, vote_signing_bytes
from dwcp.wire.envelope import Reply
from dwcp.wire.quorum import quorum
from dwcp.wire.records import EpochRecord
from dwcp.wire.signing import Count, Hash, Scope, Verifier

HEADERS_MAX = 2048
"""Longer than a checkpoint interval and the window above it."""


class Committed(Struct, frozen=True, array_like=True, tag="committed"):
    """A reply, and the proof that its entry is committed.

    `headers` lead from the reply's entry to the certificate's, both included. They are empty where
    the log below a stable checkpoint is gone: then that checkpoint is the certificate.
    """

    reply: Reply
    headers: Annotated[tuple[Header, ...], Meta(max_length=HEADERS_MAX)]
    certificate: Certificate

    @property
    def request(self) -> Hash:
        """The request that is answered."""
        return self.reply.request

    @property
    def member(self) -> Count:
        """Who answers."""
        return self.reply.member

    @property
    def epoch(self) -> Count:
        """The epoch in which it answers."""
        return self.reply.epoch

    @property
    def view(self) -> Count:
        """The term that it believes to be the present one."""
        return self.reply.view


def proves(record: EpochRecord, scope: Scope, verifier: Verifier, said: Committed) -> bool:
    """True when a quorum of the record's members has signed for the reply's entry."""
    return _leads_there(said) and _is_certified(record, scope, verifier, said.certificate)


def _leads_there(said: Committed) -> bool:
    top = said.certificate.header
    if not said.headers:
        return said.certificate.kind == "checkpoint" and top.index >= said.reply.index
    if said.headers[0].index != said.reply.index:
        return False
    for below, above in zip(said.headers, said.headers[1:], strict=False):
        if (above.index, above.prev) != (below.index + 1, below.hash()):
            return False
    return said.headers[-1].hash() == top.hash()


def _is_certified(
    record: EpochRecord, scope: Scope, verifier: Verifier, certificate: Certificate
) -> bool:
    header = certificate.header
    voters = {vote.member: vote.sig for vote in certificate.votes}
    if header.epoch != record.epoch or len(voters) != len(certificate.votes):
        return False
    if any(member >= len(record.members) for member in voters):
        return False
    leader = record.primary(header.term)
    key = record.members[leader].identity
    if not verifier.verify(key, header.signing_bytes(scope), header.sig):
        return False
    message = vote_signing_bytes(scope, certificate.kind, header, certificate.state)
    signed = {
        member
        for member, sig in voters.items()
        if verifier.verify(record.members[member].identity, message, sig)
    }
    if certificate.kind == "prepare":
        signed.add(leader)  # its signature on the header is its vote
    return len(signed) >= quorum(len(record.members), record.trust)
