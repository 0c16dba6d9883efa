"""Bugs in how epochs end and begin: triggers, SEALs, the slot, records, members, muteness.

Each function plants one bug, whose docstring says what is wrong then (epochs.md, last table).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dwcp.wire.chain import Header
from dwcp.wire.epochs import Ready, SlotVote, slot_signing_bytes
from dwcp.wire.peer import Prepare, vote_signing_bytes
from dwcp_replica.core.chain import Branch
from dwcp_replica.core.effects import SealedRecord, SlotPreparedRecord, SlotVoteRecord
from dwcp_replica.core.epochs import rest, seals, slot, switching, values
from dwcp_replica.core.epochs.keeper import Keeper
from dwcp_replica.core.epochs.line import Line
from dwcp_replica.core.epochs.mute import Muteness
from dwcp_replica.core.recover import Statement
from dwcp_replica.core.state import Core
from dwcp_replica.sim.planting import Patches


def seal_set_2f(patches: Patches) -> None:
    """One SEAL less is enough for the next record."""

    def lowered(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(core: Core, *arguments: Any) -> Any:
            core.q = 2 * core.f
            try:
                return function(core, *arguments)
            finally:
                core.q = core.membership.quorum

        return call

    patches.set(values, "value_of", lowered(values.value_of))
    patches.set(slot, "_own_value", lowered(slot._own_value))


def recover_shortest(patches: Patches) -> None:
    """The next epoch starts from the shortest log that a SEAL shows."""

    def shortest(statements: list[Statement]) -> Branch:
        return min((s.log for s in statements), key=lambda b: (b.tip.index, b.tip.hash))

    patches.set(values, "recover", shortest)


def acks_after_seal(patches: Patches) -> None:
    """A replica goes on voting in the log that it has sealed."""
    proper = seals.seal_epoch

    def seal_epoch(core: Core, trigger: Any) -> None:
        fresh = not core.sealed
        proper(core, trigger)
        for held in core.log.slots(core.final) if fresh and core.mute is None else ():
            core.broadcast(_vote(core, held.header))

    patches.set(seals, "seal_epoch", seal_epoch)


def _vote(core: Core, header: Header) -> Prepare:
    signed = vote_signing_bytes(core.membership.scope, "prepare", header)
    return Prepare(header, core.me, core.signer.sign(signed))


def seal_made_anew(patches: Patches) -> None:
    """A SEAL is resent with what the log holds by now, and other evidence."""
    proper = rest.on_tick

    def on_tick(core: Core) -> None:
        mine = core.ending.seal
        if mine is not None and core.mute is None and core.log.last > core.record.start_index:
            core.sealed = False
            core.stable, stable = None, core.stable
            core.cc, cc = None, core.cc
            core.ending.seal = seals.my_seal(core, mine.trigger)
            core.stable, core.cc = stable, cc
            core.sealed = True
        proper(core)

    patches.set(rest, "on_tick", on_tick)


def _without(patches: Patches, where: Any, name: str, kind: type[Any]) -> None:
    """Let a function write no record of this kind."""
    proper = getattr(where, name)

    def forgetting(core: Core, *arguments: Any) -> Any:
        result = proper(core, *arguments)
        core.out.persist[:] = [r for r in core.out.persist if not isinstance(r, kind)]
        return result

    patches.set(where, name, forgetting)


def seal_not_durable(patches: Patches) -> None:
    """A SEAL leaves before it is written down."""
    _without(patches, seals, "seal_epoch", SealedRecord)


def slot_value_not_durable(patches: Patches) -> None:
    """A value of the slot is accepted, and not written down."""
    _without(patches, slot, "_accept", SlotVoteRecord)


def slot_prepared_not_durable(patches: Patches) -> None:
    """A COMMIT of the slot leaves before its certificate is durable."""
    _without(patches, slot, "settle", SlotPreparedRecord)


def slot_votes_below(patches: Patches) -> None:
    """A replica votes in a view of the slot that it gave up."""
    proper = slot.start_change

    def start_change(core: Core, view: int) -> None:
        accepted = core.ending.slot.voted
        proper(core, view)
        if accepted is not None and slot.may_sign(core):
            epoch, scope = core.record.epoch, core.membership.scope
            signed = slot_signing_bytes(scope, "slot-commit", epoch, *accepted)
            sig = core.signer.sign(signed)
            core.broadcast(SlotVote(epoch, *accepted, "slot-commit", core.me, sig))

    patches.set(slot, "start_change", start_change)


def panic_not_forwarded(patches: Patches) -> None:
    """Who has sealed an epoch keeps the reason to itself, and a SEAL is no reason."""
    proper, take = seals.seal_epoch, seals.take

    def seal_epoch(core: Core, trigger: Any) -> None:
        sent = len(core.out.send)
        proper(core, trigger)
        core.out.send[:] = [
            out
            for n, out in enumerate(core.out.send)
            if n < sent or type(out.message) is not type(trigger)
        ]

    def on_seal(core: Core, sender: int, message: Any) -> None:
        if take(core, sender, message):
            slot.weigh(core)

    patches.set(seals, "seal_epoch", seal_epoch)
    patches.set(switching, "on_seal", on_seal)


def ready_without_state(patches: Patches) -> None:
    """READY is said as soon as the record is known."""

    def say_ready(self: Keeper, core: Core) -> None:
        if core.record.epoch and core.mute is None and not core.sealed and self.my_ready is None:
            unsigned = Ready(core.record.epoch, core.me, bytes(64))
            sig = core.sign(unsigned.signing_bytes(core.membership.scope))
            self.my_ready = Ready(core.record.epoch, core.me, sig)
            self.ready.add(core.me)
            self._spread_ready(core, self.my_ready)
            self._count_ready(core)

    patches.set(Keeper, "say_ready", say_ready)


def own_tail_is_final(patches: Patches) -> None:
    """A replica that waits for an epoch's start takes its own tail for final."""
    proper = Line.end

    def end(self: Line, core: Core, certified: Any) -> None:
        proper(self, core, certified)
        self.sure = max(self.sure, min(self.history.last, self.record.start_index))

    patches.set(Line, "end", end)


def mute_back_at_once(patches: Patches) -> None:
    """A replica that lost its tail speaks as soon as it has asked around."""
    patches.set(Muteness, "asks", property(lambda _self: False))
    patches.set(Muteness, "wants_refresh", property(lambda self: self.reason is not None))
    patches.set(Muteness, "may_speak_in", lambda _self, _epoch: True)
