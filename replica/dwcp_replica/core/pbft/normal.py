"""The normal case: propose, prepare, commit. Castro and Liskov 1999, section 4.2."""

from __future__ import annotations

from dwcp.wire.peer import (
    Commit,
    Entry,
    PeerMessage,
    Prepare,
    PrePrepare,
)
from dwcp_replica.core import evidence, proposals, tally
from dwcp_replica.core.certificates import VoteBook
from dwcp_replica.core.chain import Slot
from dwcp_replica.core.state import (
    EARLY_MAX,
    IN_FLIGHT_MAX,
    Core,
)


def propose(core: Core) -> None:
    """Let the primary extend the chain while requests or time ask for it and the window is open."""
    while core.leads and core.log.last - core.final < IN_FLIGHT_MAX and core.log.last < core.high:
        batch = proposals.next_batch(core)
        if batch is None:
            return
        entry = proposals.sign_entry(core, batch)
        core.append(entry)
        core.broadcast(PrePrepare(entry))
        settle(core)


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
    slot_or_reason = proposals.acceptable(core, entry)
    if isinstance(slot_or_reason, str):
        return core.refuse(sender, message, slot_or_reason)
    accept(core, entry, slot_or_reason)
    return take_ahead(core, sender)


def take_ahead(core: Core, sender: int) -> None:
    """Take proposals that had come before the ones they extend."""
    following = core.ahead.pop(core.log.last + 1, None)
    if following is not None:
        on_pre_prepare(core, sender, PrePrepare(following))


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
    if header.epoch == core.record.epoch and (header.term != core.view or not core.active):
        keep_early(core, sender, message, header.term)
        return False
    return tally.count(core, sender, message, book)


def settle(core: Core) -> None:
    """Turn quorums of votes into certificates, as far as they go."""
    check_prepared(core)
    check_final(core)


def check_prepared(core: Core) -> None:
    """Form the highest CC that the prepares allow, then commit what it covers."""
    certificate = tally.first_certificate(core)
    if certificate is not None:
        core.set_cc(certificate)
        commit_upto(core, certificate.header.index)


def commit_upto(core: Core, index: int) -> None:
    """Vote commit for every entry of this view that the new CC covers."""
    first = max(core.prepared + 1, core.view_start)
    core.prepared = index
    if core.cc is not None and core.membership.decides("prepare"):
        core.set_final(core.cc)  # Crash trust: no second round
        core.prepares.forget_upto(index)
        return
    if core.mute is not None:
        return
    for slot in core.log.slots(first - 1, index):
        core.broadcast(core.vote_commit(slot.header))


def check_final(core: Core) -> None:
    """Make final the highest entry with a quorum of commits, prefix included."""
    certificate = tally.second_certificate(core)
    if certificate is not None:
        core.set_final(certificate)
        core.prepares.forget_upto(certificate.header.index)
        core.commits.forget_upto(certificate.header.index)


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
