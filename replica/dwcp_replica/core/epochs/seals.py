"""SEALs: what a replica holds when it ends an epoch (epochs.md, Switching, step 2).

A SEAL is a VIEW-CHANGE's statement without a view, and with its trigger inside. It is made
once, durable before it leaves, and resent as it is for ever.
"""

from __future__ import annotations

from typing import Final

import msgspec

from dwcp.wire.epochs import Panics, Seal, SwitchProof, Trigger
from dwcp_replica.core import election_book
from dwcp_replica.core.certificates import Membership
from dwcp_replica.core.effects import EpochSealed, SealedRecord
from dwcp_replica.core.elections import (
    InvalidError,
    MissingElectionsError,
    Starts,
    refs_for,
    shown_statement,
)
from dwcp_replica.core.epochs import triggers
from dwcp_replica.core.pbft.view_change import shown_certificate
from dwcp_replica.core.recover import Statement
from dwcp_replica.core.state import Core

ANY_TERM: Final = 2**63
"""Above every term: a SEAL may show entries of any."""


def seal_epoch(core: Core, trigger: Trigger) -> None:
    """End the epoch here: pass the trigger on, write the SEAL down, send it.

    A mute replica signs no SEAL; it only stops acting in the epoch's log.
    """
    if core.sealed or core.halted is not None:
        return
    core.active = False
    core.change_timer_ms = None
    core.forget_votes()
    core.broadcast(trigger)
    if core.mute is None:
        seal = my_seal(core, trigger)
        for ref in seal.elections:  # others will ask for what my SEAL names
            election_book.save(core, ref.digest)
        core.ending.seal = seal
        core.persist(SealedRecord(seal))
        core.broadcast(seal)
        keep_mine(core, seal)
    core.sealed = True
    core.emit(EpochSealed(core.record.epoch, kind_of(trigger)))


def kind_of(trigger: Trigger) -> str:
    """An enumerated word for a trigger; a metric label."""
    match trigger:
        case Panics():
            return "panic"
        case SwitchProof():
            return "switch"
    return "equivocation"


def my_seal(core: Core, trigger: Trigger) -> Seal:
    """What I hold, signed."""
    low = core.low
    log = tuple(slot.header for slot in core.log.slots(low))
    cc, branch = shown_certificate(core, low)
    base_term = core.stable_point.term if core.stable_point else 0
    refs = {
        *refs_for(log, core.elections, base_term),
        *refs_for(branch, core.elections, base_term),
    }
    seal = Seal(
        epoch=core.record.epoch,
        checkpoint=core.stable,
        log=log,
        cc=cc,
        branch=branch,
        elections=tuple(sorted(refs, key=lambda ref: (ref.term, ref.digest))),
        trigger=trigger,
        member=core.me,
        sig=bytes(64),
    )
    sig = core.sign(seal.signing_bytes(core.membership.scope))
    return msgspec.structs.replace(seal, sig=sig)


def statement_of(membership: Membership, seal: Seal, starts: Starts) -> Statement:
    """What a SEAL states, after checking every signature in it, and that its trigger holds.

    Raises InvalidError, or MissingElectionsError when certificates that it needs are not held.
    """
    if not triggers.holds(membership, seal.trigger):
        raise InvalidError("trigger")
    return shown_statement(membership, seal, ANY_TERM, starts)


def take(core: Core, sender: int, seal: Seal) -> bool:
    """Check a member's SEAL and keep its first; True when it was new."""
    ending = core.ending
    if seal.member in ending.seals:
        return False
    try:
        statement = statement_of(core.membership, seal, core.elections)
    except InvalidError as invalid:
        core.refuse(sender, seal, str(invalid))
        return False
    except MissingElectionsError as missing:
        if core.membership.key(seal.member) is not None:
            ending.stuck[seal.member] = seal
        election_book.ask(core, sender, missing)
        return False
    keep(core, seal, statement)
    return True


def keep_mine(core: Core, seal: Seal) -> None:
    """Keep my own SEAL: it holds, or what I had taken into my log does not.

    Who served me final entries may have kept a term's election certificate back: it is asked for.
    """
    try:
        keep(core, seal, statement_of(core.membership, seal, core.elections))
    except InvalidError as wrong:
        raise AssertionError(f"my own SEAL does not hold: {wrong}") from wrong
    except MissingElectionsError as missing:
        core.ending.stuck[core.me] = seal
        election_book.ask(core, core.me, missing)


def keep(core: Core, seal: Seal, statement: Statement) -> None:
    """Keep a SEAL that was checked."""
    core.ending.stuck.pop(seal.member, None)
    core.ending.seals[seal.member] = seal
    core.ending.statements[seal.member] = statement
