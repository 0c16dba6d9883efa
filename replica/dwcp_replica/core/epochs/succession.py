"""Taking a replica from epoch to epoch: one core per epoch, and what outlives them.

    core of e, sealed --record e+1--> core of e+1, waiting for the start state
                                        --everything up to the start is here--> takes part

What outlives a core: the line of records and their entries, the pool of requests, the proofs
against members, the clock. Whoever is no member of the new record learns on as an outsider.
"""

from __future__ import annotations

from typing import Final

from dwcp.epochs import successor_fault
from dwcp.wire.epochs import CertifiedRecord
from dwcp.wire.signing import Signer, Verifier
from dwcp_replica.core.chain import Slot
from dwcp_replica.core.effects import EpochBegun, EpochEntered, EvidenceFound, VoiceFound
from dwcp_replica.core.epochs.keys import ERASED, ErasedKey, Keys
from dwcp_replica.core.epochs.line import Line, starting_log
from dwcp_replica.core.epochs.mute import Muteness
from dwcp_replica.core.raft.state import Draw
from dwcp_replica.core.state import Core
from dwcp_replica.core.state_tree import StateTree

OUTSIDER: Final = "no member of this epoch"
NOBODY: Final = -1
"""The number of a replica that is no member."""


def first_core(
    line: Line, me: int | None, keys: tuple[Signer, Verifier], muteness: Muteness,
    state: StateTree | None, draw: Draw | None,
) -> Core:  # fmt: skip
    """The core of genesis."""
    mute = OUTSIDER if me is None else _mute(keys[0], muteness)
    return Core(line.record, NOBODY if me is None else me, *keys, mute, state=state, draw=draw)


def _mute(signer: Signer, muteness: Muteness) -> str | None:
    return ERASED if isinstance(signer, ErasedKey) else muteness.reason


def fault(core: Core, line: Line, certified: CertifiedRecord) -> str | None:
    """Why this record does not follow the present one; None when it does."""
    return successor_fault(line.chain.genesis, core.record, certified, line.verifier)


def adopt_start(core: Core, certified: CertifiedRecord) -> None:
    """Make the decided start the end of the old log, durably, where its entries are here.

    What was final stays for ever: a start that does not extend it halts this replica.
    """
    record = certified.record
    for slots in core.ending.slot.starts.values():
        if slots and (slots[-1].header.index, slots[-1].hash) == (
            record.start_index,
            record.start_hash,
        ):
            keep = slots[0].header.index - 1
            if keep >= core.final and core.log.hash_at(keep) == slots[0].header.prev:
                core.replace_above(keep, slots)
    held = core.log.hash_at(record.start_index)
    below_final = record.start_index < core.final
    if below_final or (record.start_index == core.final and held != record.start_hash):
        core.halt(f"epoch {record.epoch} does not start above what is final here at {core.final}")
        return
    if held == record.start_hash:
        core.truncate(record.start_index)
    core.save_final()


def succeed(
    core: Core, line: Line, certified: CertifiedRecord, muteness: Muteness, keys: Keys
) -> Core:
    """The core of the next epoch; its log begins when the history is complete."""
    record = certified.record
    if line.chain.current.epoch < record.epoch:
        core.persist(EpochBegun(certified))
        line.end(core, certified)
    signer, me = keys.of(record)
    mute = OUTSIDER if me is None else _mute(signer, muteness)
    found_voice = mute is not None and me is not None and muteness.may_speak_in(record.epoch)
    if found_voice:
        muteness.end()
        mute = None
    number = NOBODY if me is None else me
    new = Core(
        line.chain.genesis, number, signer, core.membership.verifier, mute,
        state=core.state if core.shows_state else None, record=record, draw=core.raft.draw,
    )  # fmt: skip
    _carry(core, new)
    new.emit(EpochEntered(certified, me))
    if found_voice:
        new.emit(VoiceFound(record.epoch))
    new.active = False
    new.waiting = True
    return new


def _carry(old: Core, new: Core) -> None:
    """Hand over what outlives an epoch."""
    new.out = old.out
    new.pool = old.pool
    new.client_keys |= old.client_keys  # what former members have sent may still wait
    new.transfer, new.stateless = old.transfer, old.stateless
    for slot in old.log.slots(min(new.record.start_index, old.log.last)):
        new.pool.dropped(slot.requests)
    new.now_ms, new.wall_ms = old.now_ms, old.wall_ms
    patience_ms = old.now_ms + new.record.parameters.request_timeout_ms
    new.heard_ms = dict.fromkeys(range(new.n), patience_ms)
    new.heartbeat_ms = old.now_ms
    new.view_since_ms = new.progress_ms = old.now_ms
    for member, found in sorted(old.evidence.items()):
        number = _number_in(new, old, member)
        if number is not None:
            new.past_evidence[number] = EvidenceFound(number, found.kind, found.evidence)
    new.past_evidence |= _still_here(old, new)


def _still_here(old: Core, new: Core) -> dict[int, EvidenceFound]:
    found = {}
    for member, one in sorted(old.past_evidence.items()):
        number = _number_in(new, old, member)
        if number is not None:
            found[number] = EvidenceFound(number, one.kind, one.evidence)
    return found


def _number_in(new: Core, old: Core, member: int) -> int | None:
    """What a member is called now; names are never used again, so another key does not hide it."""
    was = old.record.members[member]
    number = new.record.member_with(was.identity)
    return new.record.member_named(was.name) if number is None else number


def begin(core: Core, line: Line) -> bool:
    """Let the epoch begin here once everything up to its start is held; True when it does now."""
    if core.waiting and core.log.base.index > core.record.start_index:
        line.skip()  # a stable checkpoint of this epoch stands for all that came before
        core.waiting = False
    elif core.waiting and line.is_complete:
        core.waiting = False
        core.log = starting_log(line)
    else:
        return False
    core.active = not core.sealed
    core.view_since_ms = core.progress_ms = core.now_ms
    return True


def emit_history(core: Core, line: Line, emitted: int) -> int:
    """Let entries of ended epochs be executed, in order, as far as they are sure."""
    if core.transfer is not None or core.stateless:
        return emitted
    slots: list[Slot] = line.history.slots(emitted, line.sure)
    for slot in slots:
        core.out.apply.append(slot.entry)
        core.pool.executed(slot.requests, core.now_ms)
    return max(emitted, line.sure)
