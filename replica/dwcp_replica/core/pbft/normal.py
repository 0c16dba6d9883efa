"""The normal case: propose, prepare, commit. Castro and Liskov 1999, section 4.2."""

from __future__ import annotations

import msgspec

from dwcp.wire.envelope import (
    MAX_ENVELOPE_BYTES,
    Batch,
    batch_digest,
    decode_batch,
    envelope_signing_bytes,
)
from dwcp.wire.peer import (
    Certificate,
    Commit,
    Entry,
    Header,
    PeerMessage,
    Prepare,
    PrePrepare,
    vote_signing_bytes,
)
from dwcp_replica.core import evidence
from dwcp_replica.core.certificates import Vote, VoteBook
from dwcp_replica.core.chain import Slot
from dwcp_replica.core.state import (
    BATCH_BYTES_MAX,
    BATCH_ENVELOPES_MAX,
    BODY_BYTES_MAX,
    EARLY_MAX,
    IN_FLIGHT_MAX,
    Core,
)


def propose(core: Core) -> None:
    """Let the primary extend the chain while requests wait and the window is open."""
    while (
        core.leads
        and core.pool.has_unproposed
        and core.log.last - core.final < IN_FLIGHT_MAX
        and core.log.last < core.high
    ):
        envelopes = core.pool.take(BATCH_BYTES_MAX, BATCH_ENVELOPES_MAX)
        stamp_ms = max(core.log.stamp_ms, core.wall_ms)
        entry = sign_entry(core, Batch(stamp_ms, tuple(envelopes)))
        core.append(entry)
        core.broadcast(PrePrepare(entry))
        settle(core)


def sign_entry(core: Core, batch: Batch) -> Entry:
    """The next entry of my own view, signed."""
    tip = core.log.tip
    body = msgspec.msgpack.encode(batch)
    header = Header(
        epoch=core.record.epoch,
        term=core.view,
        index=tip.index + 1,
        batch=batch_digest(body),
        prev=tip.hash,
        sig=bytes(64),
    )
    sig = core.sign(header.signing_bytes(core.membership.scope))
    return Entry(msgspec.structs.replace(header, sig=sig), body)


def on_pre_prepare(core: Core, sender: int, message: PrePrepare) -> None:
    """Take a proposal: check everything about it, make it durable, vote for it."""
    entry = message.entry
    header = entry.header
    if header.epoch != core.record.epoch:
        return core.refuse(sender, message, "epoch")
    if header.term != core.view or not core.active:
        return keep_early(core, sender, message, header.term)
    if header.index <= core.final or header.index > core.high:
        return core.refuse(sender, message, "watermark")
    if not core.membership.header_holds(header):
        return core.refuse(sender, message, "signature")
    if evidence.check_header(core, header):
        return None
    if header.index <= core.log.last:
        return None  # a repetition of what stands there
    if header.index > core.log.last + 1:
        if header.index <= core.log.last + 2 * IN_FLIGHT_MAX:
            core.ahead.setdefault(header.index, entry)
        return None
    slot_or_reason = acceptable(core, entry)
    if isinstance(slot_or_reason, str):
        return core.refuse(sender, message, slot_or_reason)
    accept(core, entry, slot_or_reason)
    return take_ahead(core, sender)


def take_ahead(core: Core, sender: int) -> None:
    """Take proposals that had come before the ones they extend."""
    following = core.ahead.pop(core.log.last + 1, None)
    if following is not None:
        on_pre_prepare(core, sender, PrePrepare(following))


def acceptable(core: Core, entry: Entry) -> Slot | str:
    """The entry ready for the log, or the reason why it must not stand there."""
    if entry.header.prev != core.log.tip.hash or entry.header.term < core.log.tip.term:
        return "prev"
    if len(entry.body) > BODY_BYTES_MAX:
        return "body-size"
    if batch_digest(entry.body) != entry.header.batch:
        return "digest"
    try:
        batch = decode_batch(entry.body)
    except msgspec.DecodeError:
        return "body"
    if batch.stamp_ms < core.log.stamp_ms:
        return "stamp"
    if abs(batch.stamp_ms - core.wall_ms) > skew_limit(core, batch):
        return "skew"
    slot = Slot.decoded(entry, batch)
    if any(core.pool.stale(digest) for digest in slot.requests):
        return "executed"
    return check_envelopes(core, batch) or slot


def skew_limit(core: Core, batch: Batch) -> int:
    """How far a first proposal's stamp may lie from my clock.

    A stamp equal to its predecessor's is what an honest primary with a slow clock must use.
    """
    if batch.stamp_ms == core.log.stamp_ms:
        return 2**63
    return core.record.parameters.max_clock_skew_ms


def check_envelopes(core: Core, batch: Batch) -> str | None:
    """Why a batch's envelopes do not hold; None when each was signed by a known client."""
    if not batch.envelopes:
        return "empty"
    if len(batch.envelopes) > BATCH_ENVELOPES_MAX:
        return "batch-size"
    if len({envelope.digest() for envelope in batch.envelopes}) < len(batch.envelopes):
        return "twice"
    for envelope in batch.envelopes:
        if envelope.client not in core.client_keys:
            return "client"
        if len(envelope.body) > MAX_ENVELOPE_BYTES:
            return "envelope-size"
        signed = envelope_signing_bytes(core.membership.scope.genesis, envelope.body)
        if not core.membership.verifier.verify(envelope.client, signed, envelope.sig):
            return "client-signature"
    return None


def accept(core: Core, entry: Entry, slot: Slot) -> None:
    """Put a checked proposal into the log and vote for it."""
    core.append(entry, slot)
    if core.mute is None:
        core.broadcast(core.vote_prepare(entry.header))
    settle(core)


def on_prepare(core: Core, sender: int, message: Prepare) -> None:
    """Count a prepare. The primary's signature on the header is its vote; it sends none."""
    header = message.header
    if message.member == core.record.primary(header.term):
        return core.refuse(sender, message, "primary-prepares")
    if count_vote(core, sender, message, core.prepares):
        settle(core)
    return None


def on_commit(core: Core, sender: int, message: Commit) -> None:
    """Count a commit; it can make entries final, and no CC."""
    if count_vote(core, sender, message, core.commits):
        check_final(core)


def count_vote(core: Core, sender: int, message: Prepare | Commit, book: VoteBook) -> bool:
    """Check a vote in full and count it; True when it was new."""
    header = message.header
    if header.epoch != core.record.epoch:
        core.refuse(sender, message, "epoch")
        return False
    if header.term != core.view or not core.active:
        keep_early(core, sender, message, header.term)
        return False
    if header.index <= core.final:
        expose(core, header)  # late and no longer needed, but it may be a proof
        return False
    if header.index > core.high:
        core.refuse(sender, message, "watermark")
        return False
    signed = vote_signing_bytes(core.membership.scope, book.kind, header)
    if not core.membership.signed(message.member, signed, message.sig):
        core.refuse(sender, message, "signature")
        return False
    if core.log.hash_at(header.index) != header.hash():
        # the vote carries a header that I do not hold: it must be the primary's
        if not core.membership.header_holds(header):
            core.refuse(sender, message, "header-signature")
            return False
        evidence.check_header(core, header)
        core.seen[header.index] = header
    vote = Vote(header, header.hash(), b"", message.sig)
    double = book.contradiction(message.member, vote)
    if double is not None:
        evidence.convict(core, double)
    return book.add(message.member, vote)


def expose(core: Core, header: Header) -> None:
    """Convict the primary if it signed a header other than the one that is final here."""
    if core.log.hash_at(header.index) != header.hash() and core.membership.header_holds(header):
        evidence.check_header(core, header)


def settle(core: Core) -> None:
    """Turn quorums of votes into certificates, as far as they go."""
    check_prepared(core)
    check_final(core)


def check_prepared(core: Core) -> None:
    """Form the highest CC that the prepares allow, then commit what it covers.

    Only an entry of the present view gets a CC; what the view inherited is covered by it
    (epochs.md: Raft's current-term rule).
    """
    if not core.active:
        return
    for index in range(core.log.last, max(core.prepared, core.view_start - 1), -1):
        slot = core.log.slot(index)
        if slot is None or slot.header.term != core.view:
            return
        votes = core.prepares.matching(index, (slot.hash, b""))
        if len(votes) + 1 >= core.q:
            votes = votes[: core.q - 1]
            core.set_cc(Certificate("prepare", slot.header, b"", tuple(votes)))
            commit_upto(core, index)
            return


def commit_upto(core: Core, index: int) -> None:
    """Vote commit for every entry of this view that the new CC covers."""
    first = max(core.prepared + 1, core.view_start)
    core.prepared = index
    if core.mute is not None:
        return
    for slot in core.log.slots(first - 1, index):
        core.broadcast(core.vote_commit(slot.header))


def check_final(core: Core) -> None:
    """Make final the highest entry with a quorum of commits, prefix included."""
    if not core.active:
        return
    for index in range(core.log.last, max(core.final, core.view_start - 1), -1):
        slot = core.log.slot(index)
        if slot is None or slot.header.term != core.view:
            return
        votes = core.commits.matching(index, (slot.hash, b""))
        if len(votes) >= core.q:
            votes = votes[: core.q]
            core.set_final(Certificate("commit", slot.header, b"", tuple(votes)))
            core.prepares.forget_upto(index)
            core.commits.forget_upto(index)
            return


def keep_early(core: Core, sender: int, message: PeerMessage, term: int) -> None:
    """Keep a message of a view that has not begun here; drop one of a view that has ended."""
    if term < core.view:
        return
    kept = core.early.setdefault(sender, [])
    proposals = sum(isinstance(m, PrePrepare) for m in kept)
    if len(kept) >= EARLY_MAX or (isinstance(message, PrePrepare) and proposals >= IN_FLIGHT_MAX):
        core.refuse(sender, message, "early-overflow")
        return
    kept.append(message)
