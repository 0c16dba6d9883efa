"""Bugs in how epochs end and begin: triggers, SEALs, the slot, records, members, muteness.

Each function plants one bug, whose docstring says what is wrong then (epochs.md, last table).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from dwcp.wire.chain import Header
from dwcp.wire.epochs import Ready, SlotVote, slot_signing_bytes
from dwcp.wire.peer import Prepare, vote_signing_bytes
from dwcp_replica.core import due
from dwcp_replica.core.chain import Branch
from dwcp_replica.core.effects import SealedRecord, SlotPreparedRecord, SlotVoteRecord
from dwcp_replica.core.epochs import rest, seals, slot, values
from dwcp_replica.core.epochs.keeper import Keeper
from dwcp_replica.core.epochs.line import Line
from dwcp_replica.core.epochs.mute import Muteness
from dwcp_replica.core.recover import Statement
from dwcp_replica.core.state import Core
from dwcp_replica.sim.planting import Patches, Setting
from dwcp_replica.sim.scenario import (
    FAULTS_MS,
    Alarmed,
    Crash,
    Cut,
    Lose,
    Refresh,
    Replace,
    Resize,
    Rot,
)
from dwcp_replica.sim.world import Link


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


def kept_switches_unwatched(patches: Patches) -> None:
    """A primary may keep the admin's orders and its fellows' requests to itself for ever."""
    patches.set(due, "_switch_is_late", lambda _core: False)


def mute_back_at_once(patches: Patches) -> None:
    """A replica that lost its tail speaks as soon as it has asked around."""
    patches.set(Muteness, "asks", property(lambda _self: False))
    patches.set(Muteness, "wants_refresh", property(lambda self: self.reason is not None))
    patches.set(Muteness, "may_speak_in", lambda _self, _epoch: True)


REFRESHED: Final = Setting(n=4, liars={}, faults=(Refresh(150), Refresh(600), Refresh(1100)))
SEALED_LONG: Final = Setting(
    n=4,
    liars={},
    faults=(
        Refresh(300),
        Crash(1, 500, 900),
        Crash(2, 650, 200),
        Refresh(900),
        Alarmed((0, 2, 3), 1300),
    ),
)
VOTES_LOST: Final = Setting(
    n=4,
    liars={},
    faults=(Refresh(200), *(Lose(m, 1, FAULTS_MS, "SlotVote") for m in range(4))),
)
SHORT_SEALS: Final = Setting(
    n=4,
    operations=60,
    interval=100,
    liars={2: "short-seal"},
    faults=tuple(
        fault
        for member, at in ((3, 200), (1, 700), (0, 1200), (3, 1700), (1, 2200))
        for fault in (Refresh(at), Cut((member,), at - 100, 200))
    ),
    weather=Link(1, 10),
)
"""Each time somebody lacks what is final when the epoch is sealed, and the liar hides it."""

JOINING: Final = Setting(
    n=4,
    liars={},
    faults=(Replace(3, 200), Refresh(500), Resize(700)),
    weather=Link(1, 80, 0.1),
)
TAIL: Final = Setting(
    n=4,
    interval=4,
    liars={},
    faults=(Cut((0,), 300, 1200), Refresh(420), Alarmed((2, 3), 1300)),
)
ROTTEN: Final = Setting(
    n=4, liars={}, faults=(Refresh(200), Rot(1, 700, 50, tail=True), Refresh(900))
)

LIST: Final[tuple[tuple[str, Callable[[Patches], None], Setting, int], ...]] = (
    ("seal-set-2f", seal_set_2f, SHORT_SEALS, 60),
    ("epoch-starts-from-the-shortest-log", recover_shortest, REFRESHED, 100),
    ("acks-after-seal", acks_after_seal, REFRESHED, 20),
    ("seal-made-anew", seal_made_anew, SEALED_LONG, 60),
    ("seal-not-durable", seal_not_durable, REFRESHED, 10),
    ("slot-value-not-durable", slot_value_not_durable, REFRESHED, 10),
    ("slot-prepared-not-durable", slot_prepared_not_durable, REFRESHED, 10),
    ("slot-votes-below-the-view-asked-for", slot_votes_below, VOTES_LOST, 20),
    ("ready-without-state", ready_without_state, JOINING, 20),
    (
        "kept-switches-unwatched",
        kept_switches_unwatched,
        Setting(n=4, liars={0: "censor"}, faults=(Refresh(300),)),
        20,
    ),
    ("own-tail-taken-for-final", own_tail_is_final, TAIL, 50),
    ("mute-back-at-once", mute_back_at_once, ROTTEN, 50),
)
"""Name, bug, lives, seeds: part of the table in planted.py."""
