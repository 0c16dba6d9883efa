"""Bugs in what is saved, cut and fetched: snapshots, the log's end below, state transfer.

Each function plants one bug, whose docstring says what is wrong then.
"""

from __future__ import annotations

from typing import Any

from dwcp.wire.envelope import decode_batch
from dwcp.wire.state import StableCheckpoint, StateChunk, StateNode
from dwcp_replica.core import collection, replica, tables, transfer
from dwcp_replica.core.effects import Record
from dwcp_replica.core.state import Core
from dwcp_replica.core.transfer import Asked, Transfer
from dwcp_replica.core.trie import leaf_hash, path_of
from dwcp_replica.sim.host import Host
from dwcp_replica.sim.planting import Patches
from dwcp_replica.store.sessions import Sessions
from dwcp_replica.store.store import Store


def unverified_state(patches: Patches) -> None:
    """A part of the state is written whatever its hash."""

    def fault(_transfer: Transfer, asked: Asked, message: StateChunk) -> str | None:
        known = all(node.place in asked.places for node in message.nodes)
        known = known and all(value.key in asked.keys for value in message.values)
        return None if known else "not-asked"

    patches.set(transfer, "fault", fault)


def unverified_values(patches: Patches) -> None:
    """A record's hash is checked, and its value need not be the one that it is of."""
    proper = transfer.shown_hash

    def shown_hash(node: StateNode) -> bytes | None:
        if node.children:
            return proper(node)
        return leaf_hash(sorted((path_of(r.key), r.hash) for r in node.records))

    patches.set(transfer, "shown_hash", shown_hash)


def state_without_sessions(patches: Patches) -> None:
    """The table of what was executed does not come with the state."""
    proper = Store.end_transfer

    def end_transfer(self: Store) -> None:
        proper(self)
        number = self._sessions.next_number
        self._sessions = Sessions(self._limits.sessions)
        self._sessions.next_number = number

    patches.set(Store, "end_transfer", end_transfer)


def uncertified_state(patches: Patches) -> None:
    """A checkpoint to aim at needs no quorum's signatures."""

    def on_stable_checkpoint(core: Core, sender: int, message: StableCheckpoint) -> None:
        if sender in core.fetch_asked and message.certificate.header.index > core.final:
            stamp_ms = decode_batch(message.body).stamp_ms
            transfer.begin(core, message.certificate, stamp_ms, message.body)

    patches.set(replica, "SHARED", {**tables.SHARED, StableCheckpoint: on_stable_checkpoint})


def stale_state_accepted(patches: Patches) -> None:
    """A replica goes back to an older checkpoint when somebody shows one."""

    def on_stable_checkpoint(core: Core, sender: int, message: StableCheckpoint) -> None:
        if sender in core.fetch_asked and core.membership.certificate_holds(message.certificate):
            core.fetch_asked.clear()
            stamp_ms = decode_batch(message.body).stamp_ms
            transfer.begin(core, message.certificate, stamp_ms, message.body)

    patches.set(replica, "SHARED", {**tables.SHARED, StableCheckpoint: on_stable_checkpoint})


def log_cut_above_execution(patches: Patches) -> None:
    """Entries go when their checkpoint is stable, executed here or not."""
    proper = collection.collect

    def collect(core: Core) -> None:
        saved, core.saved = core.saved, core.low
        proper(core)
        core.saved = saved

    patches.set(collection, "collect", collect)


def log_cut_without_snapshot(patches: Patches) -> None:
    """The log begins anew, and the state that it leads on from was never made durable."""

    def begin_anew(self: Host) -> list[Record] | None:
        if not self._saving_due or self.store.target is not None:
            return None
        self._saving_due = False
        return self.core.durable()

    patches.set(Host, "_begin_anew", begin_anew)


def votes_cut_with_the_log(patches: Patches) -> None:
    """The records that the log begins anew with leave out the view that was asked for."""
    proper = collection.durable

    def durable(core: Core) -> list[Any]:
        return [r for r in proper(core) if type(r).__name__ != "ViewChangeRecord"]

    patches.set(collection, "durable", durable)


def certificate_cut_with_the_log(patches: Patches) -> None:
    """The records that the log begins anew with leave out the highest CC and its branch."""
    proper = collection.durable

    def durable(core: Core) -> list[Any]:
        kept = [r for r in proper(core) if type(r).__name__ != "BranchRecord"]
        return [
            r for r in kept if getattr(getattr(r, "certificate", None), "kind", "") != "prepare"
        ]

    patches.set(collection, "durable", durable)


def executes_without_state(patches: Patches) -> None:
    """What is final is executed while the state is still being fetched."""

    def emit_final(self: Core) -> None:
        for slot in self.log.slots(self.emitted, self.final):
            self.out.apply.append(slot.entry)
        self.emitted = self.final

    patches.set(Core, "emit_final", emit_final)


def absent_records_stay(patches: Patches) -> None:
    """What the certified state does not have is not removed from one's own."""

    def below(_state: object, _place: bytes) -> tuple[()]:
        return ()

    patches.set(transfer, "below", below)
