"""Checkpoints: agreement on the state, not only on the log. Castro and Liskov 1999, section 4.3.

After every `checkpoint_interval` entries each replica signs the digest of its state. A quorum of
equal digests is a stable checkpoint: it moves the water marks, and stands for its whole prefix
wherever a chain is compared (epochs.md). It never moves back. What it makes needless is collected
(collection.py).
"""

from __future__ import annotations

from dwcp.wire.peer import Certificate, CheckpointVote, vote_signing_bytes
from dwcp_replica.core import collection, evidence, transfer
from dwcp_replica.core.certificates import Vote
from dwcp_replica.core.effects import CheckpointStable, StateDiverged
from dwcp_replica.core.state import Core


def on_applied(core: Core, index: int, state: bytes | None, saved: int = 0) -> None:
    """The state machine has executed up to `index`: vote when a checkpoint is due.

    A restart finds the state at `saved`.
    """
    assert index > core.applied, f"applied went back: {core.applied} -> {index}"
    assert index <= core.final, "only final entries are executed"
    core.applied = index
    core.saved = max(core.saved, saved)
    if core.transfer is not None:
        return  # what was executed before the state was given up
    core.emit_final()
    collection.collect(core)
    if index % core.interval:
        return
    assert state is not None, f"a checkpoint is due at {index}: its state digest is needed"
    vote(core, index, state)


def vote(core: Core, index: int, state: bytes) -> None:
    """Sign the state after an executed entry, where it is not stable yet."""
    core.states[index] = state
    check_state(core, index)
    if index <= core.low or core.halted is not None:
        return
    slot = core.log.slot(index)
    assert slot is not None, "executed entries stand in the log"
    if core.mute is None and not core.sealed:
        core.my_checkpoint = core.vote_checkpoint(slot.header, state)
        core.broadcast(core.my_checkpoint)
    check_stable(core, index)


def on_checkpoint_vote(core: Core, sender: int, message: CheckpointVote) -> None:
    """Count a vote; only equal digests add up."""
    header = message.header
    if header.epoch != core.record.epoch:
        return core.refuse(sender, message, "epoch")
    if header.index <= core.low:
        return None
    if header.index % core.interval or header.index > votes_upto(core):
        return core.refuse(sender, message, "watermark")
    signed = vote_signing_bytes(core.membership.scope, "checkpoint", header, message.state)
    if not core.membership.signed(message.member, signed, message.sig):
        return core.refuse(sender, message, "signature")
    if not core.membership.header_holds(header):
        return core.refuse(sender, message, "header-signature")
    vote = Vote(header, header.hash(), message.state, message.sig)
    double = core.checkpoint_votes.contradiction(message.member, vote)
    if double is not None:
        evidence.convict(core, double)
    if core.checkpoint_votes.add(message.member, vote):
        core.checkpoint_headers[header.hash()] = header
        check_stable(core, header.index)
    return None


def votes_upto(core: Core) -> int:
    """The highest index whose checkpoint votes are kept: one window above the high water mark."""
    return core.high + (core.high - core.low)


def check_stable(core: Core, index: int) -> None:
    """Form the stable checkpoint at `index` when a quorum says the same."""
    for said in core.checkpoint_votes.said(index):
        votes = core.checkpoint_votes.matching(index, said)
        header = core.checkpoint_headers.get(said[0])
        if header is None:
            slot = core.log.slot(index)
            header = slot.header if slot is not None and slot.hash == said[0] else None
        if len(votes) >= core.q and header is not None:
            certificate = Certificate("checkpoint", header, said[1], tuple(votes[: core.q]))
            set_stable(core, certificate)
            return


def set_stable(core: Core, certificate: Certificate) -> None:
    """Adopt a verified stable checkpoint; its prefix is fetched first where it is not held."""
    header = certificate.header
    if header.index <= core.low:
        return
    if core.log.hash_at(header.index) != header.hash():
        core.checkpoint_waiting = certificate
        return
    collection.adopt_stable(core, certificate)
    core.emit(CheckpointStable(header.index, certificate.state))
    check_state(core, header.index)
    core.states = {index: state for index, state in core.states.items() if index > core.low}
    lost = core.stateless and core.transfer is None  # nothing else would begin it
    if (collection.is_far_behind(core) or lost) and core.shows_state:
        stamp_ms, body = core.log.stamp_at(header.index), core.log.body_at(header.index)
        transfer.begin(core, certificate, stamp_ms, body)
    collection.collect(core)


def check_state(core: Core, index: int) -> None:
    """Compare my state with a stable checkpoint: a replica whose state differs must stop."""
    certificate = core.checkpoints.get(index)
    mine = core.states.get(index)
    if certificate is not None and mine is not None and certificate.state != mine:
        core.emit(StateDiverged(index, mine, certificate.state))
        core.halt(f"state differs from the stable checkpoint at {index}")
