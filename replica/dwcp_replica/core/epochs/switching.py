"""From a reason to end the epoch to its last message: triggers, SEALs, and the slot's turn.

One honest SEAL leads to all: every trigger is passed on, and a SEAL carries its own. Reasons
that need several members (requests, PANICs) gather here; a SWITCH waits until the members that
it names have caught up.
"""

from __future__ import annotations

from typing import Final

from dwcp.wire.epochs import Panic, Panics, Seal, SwitchProof, Trigger
from dwcp.wire.peer import Equivocation, Fork
from dwcp.wire.switch import AdminSwitch, RequestedSwitch, SwitchRequest
from dwcp_replica.core import evidence
from dwcp_replica.core.epochs import seals, slot, triggers
from dwcp_replica.core.state import Core

ORDERS_MAX: Final = 4
"""Orders of the admin that are kept for one epoch: the newest ones."""


# --- triggers ------------------------------------------------------------------------------------


def consider(core: Core, sender: int, trigger: Trigger) -> None:
    """Take a trigger that somebody shows: the epoch ends here if it holds."""
    if core.sealed:
        return
    if triggers.holds(core.membership, trigger):
        if isinstance(trigger, Equivocation | Fork):
            evidence.convict(core, trigger)
        seals.seal_epoch(core, trigger)
    else:
        core.refuse(sender, trigger, "trigger")


def look(core: Core) -> None:
    """End the epoch for a reason that is here: a committed SWITCH, or a proof of equivocation."""
    if core.sealed or core.halted is not None or not triggers.can_end(core.record):
        return
    for _, found in sorted(core.evidence.items()):
        if isinstance(found.evidence, Equivocation | Fork):
            seals.seal_epoch(core, found.evidence)
            return
    proof = committed_switch(core)
    if proof is not None:
        seals.seal_epoch(core, proof)


def committed_switch(core: Core) -> SwitchProof | None:
    """The first valid SWITCH in my log that a certificate covers, with that certificate."""
    for index in core.switches:
        held = core.log.slot(index)
        if held is None or held.switch is None:
            continue
        if triggers.switch_fault(core.membership, held.switch) is not None:
            continue
        for certificate in (core.cc, core.final_certificate, core.stable):
            if certificate is None or certificate.header.index < index:
                continue
            top = certificate.header.index
            if core.log.hash_at(top) == certificate.header.hash():
                links = tuple(above.header for above in core.log.slots(index, top))
                return SwitchProof(held.entry, links, certificate)
    return None


def panic(core: Core) -> None:
    """Ask that the epoch ends: no progress, or something that can not be. Repeated as it is."""
    if core.mute is not None or core.sealed or not triggers.can_end(core.record):
        return
    said = core.ending.panics.get(core.me)
    if said is not None:
        core.broadcast(said)
        return
    unsigned = Panic(core.record.epoch, core.me, bytes(64))
    sig = core.sign(unsigned.signing_bytes(core.membership.scope))
    mine = Panic(core.record.epoch, core.me, sig)
    core.broadcast(mine)
    on_panic(core, core.me, mine)


def on_panic(core: Core, sender: int, message: Panic) -> None:
    """Count a PANIC; f+1 of them end the epoch."""
    if message.epoch != core.record.epoch:
        return core.refuse(sender, message, "epoch")
    signed = message.signing_bytes(core.membership.scope)
    if not core.membership.signed(message.member, signed, message.sig):
        return core.refuse(sender, message, "signature")
    core.ending.panics[message.member] = message
    if len(core.ending.panics) >= triggers.doubters(core.membership) and not core.sealed:
        members = sorted(core.ending.panics)[: triggers.doubters(core.membership)]
        seals.seal_epoch(core, Panics(tuple(core.ending.panics[m] for m in members)))
    return None


def on_seal(core: Core, sender: int, message: Seal) -> None:
    """Take a SEAL: its trigger ends the epoch here too."""
    if message.epoch != core.record.epoch:
        return core.refuse(sender, message, "epoch")
    took = seals.take(core, sender, message)
    if not core.sealed and (took or core.ending.stuck.get(message.member) is message):
        consider(core, sender, message.trigger)
    if took:
        slot.weigh(core)
    return None


def retry(core: Core) -> None:
    """Look again at what waited for election certificates or bodies."""
    for member in sorted(core.ending.stuck):
        if seals.take(core, member, core.ending.stuck[member]):
            slot.weigh(core)
    slot.take_waiting(core)
    slot.lead(core)


# --- requests and orders -------------------------------------------------------------------------


def request(core: Core, protocol: str) -> None:
    """Sign a wish that the epoch ends and the next runs `protocol`; the caller's cool-down holds.

    A mute replica may ask too: a request is no statement about any log.
    """
    assert protocol in triggers.PROTOCOLS, f"no driver for {protocol}"
    unsigned = SwitchRequest(core.record.epoch, protocol, core.me, bytes(64))  # type: ignore[arg-type]
    sig = core.signer.sign(unsigned.signing_bytes(core.membership.scope))
    mine = SwitchRequest(core.record.epoch, unsigned.protocol, core.me, sig)
    core.ending.requests[core.me] = mine
    core.broadcast(mine)


def on_request(core: Core, sender: int, message: SwitchRequest) -> None:
    """Keep a member's latest request."""
    if message.epoch != core.record.epoch:
        return core.refuse(sender, message, "epoch")
    signed = message.signing_bytes(core.membership.scope)
    if not core.membership.signed(message.member, signed, message.sig):
        return core.refuse(sender, message, "signature")
    core.ending.requests[message.member] = message
    return None


def on_order(core: Core, sender: int, message: AdminSwitch) -> None:
    """Keep the admin's order and pass it on, once: the primary must hear of it."""
    if message in core.ending.orders or message.epoch < core.record.epoch:
        return
    reason = triggers.switch_fault(core.membership, message)
    if reason is not None:
        core.refuse(sender, message, reason)
        return
    core.ending.orders.append(message)
    del core.ending.orders[:-ORDERS_MAX]
    core.broadcast(message)


def requested(core: Core) -> RequestedSwitch | None:
    """f+1 requests for one protocol, if they are here."""
    needed = triggers.doubters(core.membership)
    for protocol in sorted({r.protocol for r in core.ending.requests.values()}):
        asking = [r for _, r in sorted(core.ending.requests.items()) if r.protocol == protocol]
        if len(asking) >= needed:
            return RequestedSwitch(asking[0].protocol, tuple(asking[:needed]))
    return None
