"""After a crash: what the records say about the end of an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from dwcp.wire.peer import Certificate
from dwcp_replica.core import collection, restore
from dwcp_replica.core.chain import Point, Slot
from dwcp_replica.core.effects import (
    BaseRecord,
    CertificateRecord,
    EntryRecord,
    EpochBegun,
    Record,
    SealedRecord,
    SlotChangeRecord,
    SlotPreparedRecord,
    SlotVoteRecord,
)
from dwcp_replica.core.epochs import seals, slot, succession
from dwcp_replica.core.epochs.line import Line
from dwcp_replica.core.restore import OwnState
from dwcp_replica.core.state import Core


def state_here(core: Core, line: Line, own: OwnState | None) -> OwnState | None:
    """The state that a start has found, as the present epoch's log sees it.

    One below the epoch's start counts as its start, where the history leads there.
    """
    if own is None or own.applied is None or own.applied > core.record.start_index:
        return own
    if own.applied == core.record.start_index and core.record.epoch == 0:
        return own
    if own.applied < line.history.base.index:
        return OwnState(None, b"")
    return None


def replay_epoch(
    core: Core,
    line: Line,
    segment: Iterable[Record],
    resume: Callable[[Core, int], None],
    own: OwnState | None = None,
) -> None:
    """One epoch's records: first what it still fetched of the ones before.

    They may have let the history begin anew, above the state that was found (`own`).
    """
    mine: list[Record] = []
    for record in segment:
        if isinstance(record, EntryRecord) and record.entry.header.epoch < core.record.epoch:
            if record.entry.header.index > line.history.base.index:
                line.put(Slot.of(record.entry))
        elif isinstance(record, BaseRecord) and record.index < core.record.start_index:
            line.rebase(
                Point(record.index, record.hash, record.term), record.stamp_ms, record.body or None
            )
            if record.certificate is not None:
                line.checkpoints[record.index] = record.certificate
        elif isinstance(record, CertificateRecord) and is_old_checkpoint(core, record.certificate):
            line.checkpoints[record.certificate.header.index] = record.certificate
        else:
            mine.append(record)
    bases = [r.index for r in mine if isinstance(r, BaseRecord)]
    if core.waiting and max(bases, default=0) > core.record.start_index:
        line.skip()
        core.waiting, core.active = False, True  # its first view, until a record says otherwise
    succession.begin(core, line)
    restore.replay(core, mine, resume, state_here(core, line, own))
    core.active = core.active and not core.waiting
    replay_ending(core, mine)


def is_old_checkpoint(core: Core, certificate: Certificate) -> bool:
    """True for a stable checkpoint of an epoch that has ended."""
    return certificate.kind == "checkpoint" and certificate.header.epoch < core.record.epoch


def durable(core: Core, line: Line) -> list[Record]:
    """All that must be found again after a crash, as records that stand for all before them."""
    found: list[Record] = []
    if core.record.epoch > 0:
        base = line.history.base
        stamp_ms = line.history.stamp_at(base.index)
        body = line.history.body_at(base.index) or b""
        found.append(BaseRecord(base.index, base.hash, base.term, stamp_ms, None, body))
        found += [EpochBegun(certified) for certified in line.chain.certified]
        found += [CertificateRecord(line.checkpoints[index]) for index in sorted(line.checkpoints)]
        found += [EntryRecord(slot.entry) for slot in line.history.slots(base.index)]
    if not core.waiting:
        found += collection.durable(core)
    ending, slot_state = core.ending, core.ending.slot
    if ending.seal is not None:
        found.append(SealedRecord(ending.seal))
    if slot_state.change is not None and (
        slot_state.voted is None or slot_state.change.view >= slot_state.voted[0]
    ):
        last: list[Record] = [SlotChangeRecord(slot_state.change)]
    else:
        last = []
    if slot_state.voted is not None:
        view, digest = slot_state.voted
        found.append(SlotVoteRecord(view, slot_state.values[digest], slot_state.proposal))
    if slot_state.prepared is not None:
        found.append(SlotPreparedRecord(slot_state.prepared))
    return found + last


def replay_ending(core: Core, records: Iterable[Record]) -> None:
    """Bring SEAL and slot back to where their records left them; the rest is passed over."""
    state = core.ending.slot
    core.switches = [s.header.index for s in core.log.slots(core.log.base.index) if s.switch]
    for record in records:
        match record:
            case SealedRecord(seal):
                core.ending.seal = seal
                seals.keep_mine(core, seal)
            case SlotVoteRecord(view, value, proposed):
                state.view, state.change = view, None
                state.voted = (view, value.record.hash())
                state.values[value.record.hash()] = value
                state.proposal = proposed or state.proposal
            case SlotPreparedRecord(certificate):
                state.prepared = certificate
            case SlotChangeRecord(change):
                state.view, state.change = change.view, change
                state.changes[core.me] = change
    if core.ending.seal is not None:
        core.active = False
        core.sealed = True


def begin(core: Core) -> None:
    """The first tick in a sealed epoch: what I had said is said again, not made anew."""
    if not core.sealed:
        return
    state = core.ending.slot
    if not slot.may_sign(core) or state.voted is None or state.voted[0] != state.view:
        return
    if state.change is not None:
        return  # accepted a view, then gave it up
    view, digest = state.voted
    slot.vote(core, "slot-prepare", view, digest)
    if state.prepared is not None and state.prepared.view == view:
        state.committed = state.voted
        slot.vote(core, "slot-commit", view, digest)
    state.timer_ms = core.now_ms
