"""Bugs in what replicas believe: quorums, votes, signatures, certificates, checkpoints, evidence.

Each function plants one bug, whose docstring says what is wrong then.
"""

from __future__ import annotations

from typing import Any

from msgspec import structs

from dwcp import reads
from dwcp.matching import Collector, Finding, ReplyChecker
from dwcp.reads import Reads
from dwcp.wire.envelope import decode_batch
from dwcp.wire.operations import PutRequest, PutResponse, RangeRequest
from dwcp.wire.peer import (
    Certificate,
    CheckpointVote,
    Commit,
    DoubleVote,
    Entry,
    Evidence,
    Header,
    Prepare,
    VoteSig,
    vote_signing_bytes,
)
from dwcp.wire.records import EpochRecord
from dwcp_replica.core import catchup, checkpoints, evidence, proposals
from dwcp_replica.core.certificates import Membership, Vote, VoteBook
from dwcp_replica.core.chain import Slot
from dwcp_replica.core.effects import CertificateRecord, CheckpointStable
from dwcp_replica.core.pbft import normal
from dwcp_replica.core.standing import Standing
from dwcp_replica.core.state import Core
from dwcp_replica.sim.host import Host
from dwcp_replica.sim.planting import Patches
from dwcp_replica.store.mvcc import Mvcc

# --- quorums and votes ------------------------------------------------------------------------


def quorum_2f(patches: Patches) -> None:
    """Two quorums share only members that may lie."""
    patches.set(Membership, "quorum", property(lambda self: 2 * ((self.n - 1) // 3)))


def quorum_4_at_7(patches: Patches) -> None:
    """Seven members decide by a majority."""
    patches.set(Membership, "quorum", property(lambda self: 4 if self.n == 7 else 3))


def votes_without_digest(patches: Patches) -> None:
    """Votes at one place add up whatever they are for."""
    patches.set(VoteBook, "matching", _any_votes(None, VoteBook.matching))


def checkpoint_votes_without_digest(patches: Patches) -> None:
    """Checkpoint votes at one place add up whatever the state."""
    patches.set(VoteBook, "matching", _any_votes("checkpoint", VoteBook.matching))


def _any_votes(kind: str | None, proper: Any) -> Any:
    def matching(self: VoteBook, index: int, said: tuple[bytes, bytes]) -> list[VoteSig]:
        if kind not in (None, self.kind):
            found: list[VoteSig] = proper(self, index, said)
            return found
        at_index = self.votes.get(index, {})
        return [VoteSig(member, vote.sig) for member, vote in sorted(at_index.items())]

    return matching


def votes_of_strangers(patches: Patches) -> None:
    """A vote in the name of nobody we know is taken as signed."""

    def signed(self: Membership, member: int, message: bytes, sig: bytes) -> bool:
        key = self.key(member)
        return key is None or self.verifier.verify(key, message, sig)

    patches.set(Membership, "signed", signed)


def votes_in_any_name(patches: Patches) -> None:
    """Any member's signature will do for any member's vote."""

    def signed(self: Membership, _member: int, message: bytes, sig: bytes) -> bool:
        keys = [member.identity for member in self.record.members]
        return any(self.verifier.verify(key, message, sig) for key in keys)

    patches.set(Membership, "signed", signed)


def primary_votes_twice(patches: Patches) -> None:
    """A primary's prepare counts beside its signature on the header."""

    def on_prepare(core: Core, sender: int, message: Prepare) -> None:
        if normal.count_vote(core, sender, message, core.prepares):
            normal.settle(core)

    patches.set(normal, "on_prepare", on_prepare)


def final_after_one_round(patches: Patches) -> None:
    """Prepared is taken for final."""

    def check_final(core: Core) -> None:
        cc = core.cc
        if cc is not None and core.active and cc.header.index > core.final:
            core.set_final(Certificate("commit", cc.header, b"", cc.votes))

    patches.set(normal, "check_final", check_final)


def commit_without_cc(patches: Patches) -> None:
    """A replica commits what it has only accepted."""
    proper = normal.accept

    def accept(core: Core, entry: Entry, slot: Slot) -> None:
        signed = vote_signing_bytes(core.membership.scope, "commit", entry.header)
        proper(core, entry, slot)
        core.broadcast(Commit(entry.header, core.me, core.signer.sign(signed)))

    patches.set(normal, "accept", accept)


def executes_at_prepared(patches: Patches) -> None:
    """Replies go out before the entry is final."""
    proper = normal.commit_upto

    def commit_upto(core: Core, index: int) -> None:
        proper(core, index)
        for slot in core.log.slots(core.emitted, index):
            core.out.apply.append(slot.entry)
        core.emitted = max(core.emitted, index)

    patches.set(normal, "commit_upto", commit_upto)


def second_proposal_replaces_the_first(patches: Patches) -> None:
    """A conflicting proposal for one place is taken and voted for."""
    proper = normal.on_pre_prepare

    def on_pre_prepare(core: Core, sender: int, message: Any) -> None:
        header = message.entry.header
        held = core.log.slot(header.index)
        other = held is not None and held.hash != header.hash() and header.term == core.view
        if other and header.index > core.final and core.log.last == header.index and core.active:
            core.truncate(header.index - 1)
        proper(core, sender, message)

    patches.set(evidence, "check_header", lambda _core, _header: False)
    patches.set(normal, "on_pre_prepare", on_pre_prepare)


# --- what is signed and what is in it -----------------------------------------------------------


def unverified_headers(patches: Patches) -> None:
    """Anybody may propose."""

    def header_holds(self: Membership, header: Header) -> bool:
        return header.epoch == self.record.epoch

    patches.set(Membership, "header_holds", header_holds)


def unverified_clients(patches: Patches) -> None:
    """An envelope counts without its client's signature."""
    patches.set(proposals, "check_envelopes", lambda _core, batch: None if batch.envelopes else "")


def unverified_bodies(patches: Patches) -> None:
    """A proposal's body need not be the one that its header names."""

    def acceptable(core: Core, entry: Entry) -> Slot | str:
        if entry.header.prev != core.log.tip.hash:
            return "prev"
        return Slot.decoded(entry, decode_batch(entry.body))

    patches.set(proposals, "acceptable", acceptable)


def catch_up_without_certificate(patches: Patches) -> None:
    """Entries from a peer are final because it says so."""
    proper = catchup.chain_fault

    def chain_fault(core: Core, message: Any) -> str | None:
        holds = patches.set(Membership, "certificate_holds", lambda _self, _certificate: True)
        try:
            return proper(core, message)
        finally:
            Membership.certificate_holds = holds  # type: ignore[method-assign]

    patches.set(catchup, "chain_fault", chain_fault)


def catch_up_without_digest(patches: Patches) -> None:
    """A body from a peer need not be the one that its header names."""
    proper = catchup.chain_fault

    def chain_fault(core: Core, message: Any) -> str | None:
        reason = proper(core, message)
        return None if reason == "digest" else reason

    patches.set(catchup, "chain_fault", chain_fault)


# --- checkpoints and water marks ------------------------------------------------------------------


def stale_checkpoint_accepted(patches: Patches) -> None:
    """A quorum for a checkpoint at or below the stable one makes it stable again."""
    forget = VoteBook.forget_upto

    def forget_upto(self: VoteBook, index: int) -> None:
        if self.kind != "checkpoint":
            forget(self, index)

    def on_checkpoint_vote(core: Core, _sender: int, message: CheckpointVote) -> None:
        header = message.header
        signed = vote_signing_bytes(core.membership.scope, "checkpoint", header, message.state)
        if not core.membership.signed(message.member, signed, message.sig):
            return
        vote = Vote(header, header.hash(), message.state, message.sig)
        core.checkpoint_votes.add(message.member, vote)
        core.checkpoint_headers[header.hash()] = header
        checkpoints.check_stable(core, header.index)

    def set_stable(core: Core, certificate: Certificate) -> None:
        header = certificate.header
        if core.log.hash_at(header.index) != header.hash() or header.index > core.final:
            return
        core.stable = certificate
        core.checkpoints[header.index] = certificate
        core.persist(CertificateRecord(certificate))
        core.emit(CheckpointStable(header.index, certificate.state))

    patches.set(VoteBook, "forget_upto", forget_upto)
    patches.set(checkpoints, "on_checkpoint_vote", on_checkpoint_vote)
    patches.set(checkpoints, "set_stable", set_stable)


def unbounded_water_mark(patches: Patches) -> None:
    """Proposals are taken however far they are above the stable checkpoint."""
    patches.set(Core, "high", property(lambda self: self.low + 2**40))


# --- evidence -------------------------------------------------------------------------------------


def unproven_guilt(patches: Patches) -> None:
    """An accusation is believed without looking at its signatures."""

    def proven_liar(membership: Membership, proof: Evidence) -> int:
        if isinstance(proof, DoubleVote):
            return proof.member
        return membership.record.primary(proof.first.term)

    patches.set(evidence, "proven_liar", proven_liar)


def two_views_are_two_faces(patches: Patches) -> None:
    """Proposing again in a later view is taken for equivocation."""

    def contradicts(first: Header, second: Header) -> bool:
        return first.index == second.index and first.hash() != second.hash()

    patches.set(evidence, "contradicts", contradicts)


def evidence_not_durable(patches: Patches) -> None:
    """A proof is passed on before it is written down."""
    proper = evidence.convict

    def convict(core: Core, proof: Evidence) -> None:
        before = list(core.out.persist)
        proper(core, proof)
        core.out.persist[:] = before

    patches.set(evidence, "convict", convict)


# --- clients ------------------------------------------------------------------------------------


def one_reply_is_enough(patches: Patches) -> None:
    """A client believes the first replica that answers."""
    proper = ReplyChecker.enter

    def enter(self: ReplyChecker, record: EpochRecord) -> None:
        proper(self, record)
        self.f = 0
        self.needed = 1

    patches.set(ReplyChecker, "enter", enter)


def fast_reads_with_writes_of_f_plus_1(patches: Patches) -> None:
    """What goes through the log is answered by f+1 replies, though reads may skip it."""
    proper = ReplyChecker.enter

    def enter(self: ReplyChecker, record: EpochRecord) -> None:
        proper(self, record)
        self.needed = self.f + 1

    patches.set(ReplyChecker, "enter", enter)


def fast_reads_with_ordered_reads_of_f_plus_1(patches: Patches) -> None:
    """Writes take quorum(n) replies, but reads through the log f+1."""
    proper = Collector._decide

    def decide(self: Collector, content: Any) -> Finding:
        checker = self._checker
        needed = checker.needed
        checker.needed = checker.f + 1 if self._read_only else needed
        try:
            return proper(self, content)
        finally:
            checker.needed = needed

    patches.set(Collector, "_decide", decide)


def fast_reads_of_f_plus_1(patches: Patches) -> None:
    """A linearizable read beside the log is believed when f+1 agree."""
    proper = Reads.is_fast

    def is_fast(self: Reads, operations: Any) -> bool | None:
        return None if proper(self, operations) is None else False

    patches.set(Reads, "is_fast", is_fast)


def fast_reads_without_results(patches: Patches) -> None:
    """Replies of one revision count as equal, whatever they say."""
    patches.set(reads, "_content", lambda reply: (reply.revision, b""))


def fast_reads_without_revision(patches: Patches) -> None:
    """Replies with one result count as equal, whatever state they are of."""
    patches.set(reads, "_content", lambda reply: (0, reply.results))


def fast_reads_while_replaying(patches: Patches) -> None:
    """After a restart a replica answers before it is as far as it was."""
    patches.set(Host, "may_read", lambda self, _reads: self.store.target is None)


def fast_reads_in_a_sealed_epoch(patches: Patches) -> None:
    """A replica that has sealed its epoch, or lacks its start, answers as if nothing were newer."""
    patches.set(Standing, "shows_newest", lambda _self, _applied: True)


# --- the store: all replicas alike, so that only the clients' history shows it -------------------


def stale_reads(patches: Patches) -> None:
    """A read shows the keys as they were before the last write."""
    proper = Mvcc.range

    def range_(self: Mvcc, request: RangeRequest, answer_bytes_max: int) -> Any:
        if request.revision <= 0 and self.revision > 1:
            request = structs.replace(request, revision=self.revision - 1)
        return proper(self, request, answer_bytes_max)

    patches.set(Mvcc, "range", range_)


def lost_writes(patches: Patches) -> None:
    """Every fourth write is acknowledged and not done."""
    proper = Mvcc.put

    def put(self: Mvcc, request: PutRequest, answer_bytes_max: int) -> Any:
        if self.revision % 4:
            return proper(self, request, answer_bytes_max)
        self._sub += 1  # a revision in which nothing happened
        return PutResponse()

    patches.set(Mvcc, "put", put)
