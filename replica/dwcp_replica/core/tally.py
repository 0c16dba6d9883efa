"""Counting votes: a vote is checked in full, and a quorum that says the same is a certificate.

Only an entry of the present term gets a certificate; what the term inherited is covered by it
(epochs.md: Raft's current-term rule). The leader's signature on a header is its own vote for it.
"""

from __future__ import annotations

from collections.abc import Iterator

from dwcp.wire.peer import Certificate, Commit, Header, Prepare, vote_signing_bytes
from dwcp_replica.core import evidence
from dwcp_replica.core.certificates import Vote, VoteBook
from dwcp_replica.core.chain import Slot
from dwcp_replica.core.state import Core


def count(core: Core, sender: int, message: Prepare | Commit, book: VoteBook) -> bool:
    """Check a vote in full and count it; True when it was new."""
    header = message.header
    if header.epoch != core.record.epoch:
        core.refuse(sender, message, "epoch")
        return False
    if header.term != core.view or not core.active:
        core.refuse(sender, message, "term")  # votes of other terms never add up
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


def first_certificate(core: Core) -> Certificate | None:
    """The highest CC that the prepares allow, above the one that is known."""
    for slot in of_term(core, core.prepared):
        votes = core.prepares.matching(slot.header.index, (slot.hash, b""))
        if len(votes) + 1 >= core.q:
            return Certificate("prepare", slot.header, b"", tuple(votes[: core.q - 1]))
    return None


def second_certificate(core: Core) -> Certificate | None:
    """The highest final certificate that the commits allow, above what is final."""
    for slot in of_term(core, core.final):
        votes = core.commits.matching(slot.header.index, (slot.hash, b""))
        if len(votes) >= core.q:
            return Certificate("commit", slot.header, b"", tuple(votes[: core.q]))
    return None


def of_term(core: Core, above: int) -> Iterator[Slot]:
    """The entries of the present term above an index, highest first; none while inactive."""
    if not core.active:
        return
    for index in range(core.log.last, max(above, core.view_start - 1), -1):
        slot = core.log.slot(index)
        if slot is None or slot.header.term != core.view:
            return
        yield slot
