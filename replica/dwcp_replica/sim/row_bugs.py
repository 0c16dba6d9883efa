"""Bugs of epochs.md's last table that lives rarely show: some are hunted by exploration.

Each function plants one bug, whose docstring says what is wrong then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from dwcp.wire.epochs import SwitchProof
from dwcp.wire.peer import Commit, Header, vote_signing_bytes
from dwcp.wire.switch import AdminSwitch
from dwcp_replica.core import collection, elections
from dwcp_replica.core.certificates import Membership
from dwcp_replica.core.chain import Branch, Point
from dwcp_replica.core.effects import Retired
from dwcp_replica.core.epochs import seals, slot, switching, triggers, values
from dwcp_replica.core.epochs.keeper import Keeper
from dwcp_replica.core.recover import Statement, recover
from dwcp_replica.core.state import Core
from dwcp_replica.sim import glimpse
from dwcp_replica.sim.endings import JOINING, REFRESHED, ROTTEN
from dwcp_replica.sim.planting import Exploring, Hunted, Patches, Setting
from dwcp_replica.sim.scenario import Alarmed, Crash, Cut, Lose


def cert_acks_after_seal(patches: Patches) -> None:
    """A replica goes on to cert-ack in the log that it has sealed."""
    proper = seals.seal_epoch

    def seal_epoch(core: Core, trigger: Any) -> None:
        fresh = not core.sealed
        proper(core, trigger)
        for held in core.log.slots(core.low) if fresh and core.mute is None else ():
            signed = vote_signing_bytes(core.membership.scope, "commit", held.header)
            core.broadcast(Commit(held.header, core.me, core.signer.sign(signed)))

    patches.set(seals, "seal_epoch", seal_epoch)


def seal_hides_cc(patches: Patches) -> None:
    """A SEAL does not show its certificate."""
    patches.set(seals, "shown_certificate", lambda _core, _low: (None, ()))


def _recovers(patches: Patches, wrong: Any) -> None:
    patches.set(values, "recover", wrong)
    patches.set(glimpse, "recover", wrong)


def reports_before_cc(patches: Patches) -> None:
    """An epoch starts from what f+1 logs of the last term hold, whatever is certified."""

    def reported(statements: Sequence[Statement]) -> Branch:
        logs = [s.log for s in statements]
        top = max(log.tip.term for log in logs)
        held = Counter(log.tip for log in logs if log.tip.term == top)
        tip, count = max(held.items(), key=lambda one: (one[1], one[0].index, one[0].hash))
        if count <= len(statements) // 2:
            return recover(statements)
        return next(log for log in logs if log.tip == tip)

    _recovers(patches, reported)


def cc_before_term(patches: Patches) -> None:
    """An epoch starts from the longest certified chain, and drops what is above it."""

    def certified(statements: Sequence[Statement]) -> Branch:
        chains = [s.certified for s in statements if s.certified is not None]
        none = min((s.log for s in statements), key=lambda b: (b.tip.index, b.tip.hash))
        return max(chains, key=lambda b: (b.tip.index, b.tip.hash), default=none)

    _recovers(patches, certified)


def trigger_not_forwarded(patches: Patches) -> None:
    """Who ends an epoch keeps the reason to itself, and nobody looks at the one in its SEAL."""
    proper = seals.seal_epoch

    def seal_epoch(core: Core, trigger: Any) -> None:
        proper(core, trigger)
        core.out.send[:] = [out for out in core.out.send if out.message is not trigger]

    patches.set(seals, "seal_epoch", seal_epoch)
    patches.set(switching, "consider", lambda _core, _sender, _trigger: None)


def slot_change_hides_prepared(patches: Patches) -> None:
    """A VIEW-CHANGE of the slot does not show what was prepared."""
    proper = slot.start_change

    def start_change(core: Core, view: int) -> None:
        held, core.ending.slot.prepared = core.ending.slot.prepared, None
        proper(core, view)
        now = core.ending.slot
        now.prepared = now.prepared or held

    patches.set(slot, "start_change", start_change)


def mute_back_at_a_checkpoint(patches: Patches) -> None:
    """A replica that lost its tail speaks again once a later checkpoint is stable."""
    proper = collection.adopt_stable

    def adopt_stable(core: Core, certificate: Any) -> None:
        proper(core, certificate)
        core.mute = None

    patches.set(collection, "adopt_stable", adopt_stable)


def retires_early(patches: Patches) -> None:
    """An old member stops serving as soon as one new member holds the start."""

    def count_ready(self: Keeper, core: Core) -> None:
        if not self.retired:
            self.retired = True
            core.emit(Retired(core.record.epoch))

    patches.set(Keeper, "_count_ready", count_ready)


def switch_by_the_leader_alone(patches: Patches) -> None:
    """A SWITCH is valid whoever has asked for it."""
    patches.set(triggers, "_requests_fault", lambda _membership, _switch: None)


def old_order(patches: Patches) -> None:
    """The admin's order for one epoch ends any other."""
    proper = triggers._order_fault

    def order_fault(membership: Membership, order: AdminSwitch) -> str | None:
        reason = proper(membership, order)
        return None if reason == "switch-epoch" else reason

    patches.set(triggers, "_order_fault", order_fault)


def switch_with_a_cc_of_liars(patches: Patches) -> None:
    """A SWITCH counts as committed by a certificate of any votes."""
    proper = triggers._switch_holds

    def switch_holds(membership: Membership, proof: SwitchProof) -> bool:
        before = patches.set(Membership, "certificate_holds", lambda _self, _certificate: True)
        requests = patches.set(triggers, "_requests_fault", lambda _membership, _switch: None)
        try:
            return proper(membership, proof)
        finally:
            Membership.certificate_holds = before  # type: ignore[method-assign]
            triggers._requests_fault = requests

    patches.set(triggers, "_switch_holds", switch_holds)


def panics_of_liars(patches: Patches) -> None:
    """f members can end an epoch by PANIC."""
    patches.set(triggers, "doubters", lambda membership: (membership.n - 1) // 3)


def seals_unverified(patches: Patches) -> None:
    """Whatever log a SEAL shows is believed: no leader's signature, no election certificate."""

    def signed(_self: Membership, _header: Header) -> bool:
        return True

    def known(_self: object, _term: int, _at: Point) -> None:
        return None

    patches.set(Membership, "header_holds", signed)
    patches.set(elections._Known, "check", known)


TWO_SEAL: Final = Setting(
    n=4, liars={}, faults=(Cut((0, 1), 290, 100, inbound=False), Alarmed((0, 1), 300))
)
SLOT_LATE: Final = Setting(
    n=4,
    liars={},
    faults=(
        *(Lose(m, 1, 1800, "SlotVote") for m in (2, 3)),
        Alarmed((0, 1), 300),
        Crash(3, 900, 100),
    ),
)

LIST: Final[tuple[tuple[str, Any, Hunted, int], ...]] = (
    ("cert-acks-after-seal", cert_acks_after_seal, REFRESHED, 20),
    ("seal-hides-cc", seal_hides_cc, REFRESHED, 100),
    ("recover-reports-before-cc", reports_before_cc, Exploring("two-faces-pbft", depth=10), 1),
    ("recover-drops-what-is-above-the-cc", cc_before_term, Exploring("one-certificate"), 1),
    ("seals-unverified", seals_unverified, Exploring("seal-sets", depth=6), 1),
    ("switch-by-the-leader-alone", switch_by_the_leader_alone, Exploring("lying-switch"), 1),
    ("switch-by-an-old-order", old_order, Exploring("old-order"), 1),
    ("switch-with-a-cc-of-liars", switch_with_a_cc_of_liars, Exploring("lying-switch"), 1),
    ("panics-of-liars", panics_of_liars, Exploring("lying-switch"), 1),
    ("trigger-not-forwarded", trigger_not_forwarded, TWO_SEAL, 10),
    ("slot-change-hides-prepared", slot_change_hides_prepared, SLOT_LATE, 100),
    ("mute-back-at-a-checkpoint", mute_back_at_a_checkpoint, ROTTEN, 60),
    ("retires-early", retires_early, JOINING, 20),
)
"""Name, bug, where it is hunted, seeds: part of the table in planted.py."""
