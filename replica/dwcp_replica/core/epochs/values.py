"""The slot's values: a record with the quorum of SEALs that it follows from.

A value is valid only if every SEAL in it is, the record is the one that they oblige everyone to,
and every body of its start history is here (epochs.md, Switching, step 3).
"""

from __future__ import annotations

from dataclasses import dataclass

from dwcp.wire.epochs import Seal, SlotValue
from dwcp.wire.peer import Header
from dwcp.wire.switch import Switch
from dwcp_replica.core import election_book
from dwcp_replica.core.chain import Branch
from dwcp_replica.core.elections import InvalidError, MissingElectionsError
from dwcp_replica.core.epochs import records, seals, triggers
from dwcp_replica.core.pbft import adoption
from dwcp_replica.core.recover import Statement, UnsafeStartError, recover
from dwcp_replica.core.state import Core


@dataclass(frozen=True, slots=True)
class Waiting:
    """Something that the SEALs refer to is being fetched; `headers` are those without body."""

    headers: tuple[Header, ...] = ()


@dataclass(frozen=True, slots=True)
class Invalid:
    """The SEALs or the record do not hold; `reason` is an enumerated word."""

    reason: str
    header: Header | None = None


def value_of(core: Core, shown: tuple[Seal, ...], ask: int) -> SlotValue | Waiting | Invalid:
    """The value that a quorum of SEALs makes; what is missing is asked of member `ask`."""
    members = [seal.member for seal in shown]
    if len(members) != core.q or members != sorted(set(members)):
        return Invalid("quorum")
    statements = _statements(core, shown, ask)
    if isinstance(statements, Waiting | Invalid):
        return statements
    try:
        start = recover(statements)
    except UnsafeStartError as unsafe:
        core.halt(str(unsafe))
        return Invalid("unsafe")
    if not start.contains(core.log.point(core.final)):
        core.halt(f"the next epoch's start does not extend what is final here at {core.final}")
        return Invalid("unsafe")
    collected = adoption.collect(core, start)
    match collected:
        case adoption.Lacking(headers):
            adoption.ask_bodies(core, ask, headers)
            return Waiting(headers)
        case adoption.Worthless(header):
            return Invalid("worthless-entry", header)
    switch = first_switch(core, start, collected)
    record = records.next_record(core.membership, shown, statements, start, switch)
    core.ending.slot.starts[record.hash()] = collected.slots
    return SlotValue(record, shown)


def _statements(
    core: Core, shown: tuple[Seal, ...], ask: int
) -> list[Statement] | Waiting | Invalid:
    found = []
    for seal in shown:
        if core.ending.seals.get(seal.member) == seal:
            found.append(core.ending.statements[seal.member])
            continue
        try:
            found.append(seals.statement_of(core.membership, seal, core.elections))
        except InvalidError as invalid:
            return Invalid(str(invalid))
        except MissingElectionsError as missing:
            election_book.ask(core, ask, missing)
            return Waiting()
    return found


def first_switch(core: Core, start: Branch, collected: adoption.Collected) -> Switch | None:
    """The first valid SWITCH of the epoch in its recovered history; later ones are void."""
    held = (core.log.slot(index) for index in core.switches if _on(core, start, index))
    for slot in (*held, *collected.slots):
        switch = None if slot is None else slot.switch
        if switch is not None and triggers.switch_fault(core.membership, switch) is None:
            return switch
    return None


def _on(core: Core, start: Branch, index: int) -> bool:
    """True when my entry at `index` belongs to the start history."""
    if index <= start.base.index:
        return True
    return core.log.hash_at(index) == start.hash_at(index)
