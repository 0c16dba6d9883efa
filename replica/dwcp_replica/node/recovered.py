"""What a start finds on the disk: the core as its log left it, and the log to go on with."""

from __future__ import annotations

from dataclasses import dataclass
from random import SystemRandom
from typing import Final

from dwcp.identity import Ed25519Verifier
from dwcp.wire.records import EpochRecord
from dwcp.wire.signing import ZERO_HASH
from dwcp_replica.core.effects import Record
from dwcp_replica.core.epochs.keys import Keys
from dwcp_replica.core.replica import Replica
from dwcp_replica.core.restore import OwnState
from dwcp_replica.durable import (
    Damage,
    DamageKind,
    DataDirectory,
    ForeignDirectory,
    Wal,
    wal_binding,
)
from dwcp_replica.durable.state import StateDirectory
from dwcp_replica.node.engine import Journal
from dwcp_replica.store import Store
from dwcp_replica.store.machine import RestoreFaultError, StateMachine
from dwcp_replica.store.shelf import Shelf
from dwcp_replica.store.store import ForeignStateError

_DICE: Final = SystemRandom()


class ClosedLog:
    """Stands in for a log that is damaged in the middle and takes no more records.

    The replica is mute then: it signs nothing that would have to be remembered.
    """

    def append(self, records: list[Record]) -> None:
        """Forget the records: they are learned again after a restart."""

    def sync(self) -> None:
        """Nothing was written."""

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a start found: the core as its log left it, and the log to go on with."""

    core: Replica
    verifier: Ed25519Verifier
    journal: Journal
    wal: Wal | None
    state: StateDirectory
    store: Store
    shelf: Shelf
    damage: Damage | None
    mute: str | None
    keys: Keys


def recover(
    directory: DataDirectory, genesis: EpochRecord, machine: StateMachine | None = None
) -> Recovered:
    """Read log and state, and bring the core to where it was.

    Blocks; raises the faults of `durable`.
    """
    keys = Keys(directory.signer, directory.former_keys, directory.next_signer)
    binding = wal_binding(genesis.cluster_id, directory.first_key)
    wal, records, damage = Wal.open(directory.wal_path, binding=binding)
    journal: Journal = wal
    writable: Wal | None = wal
    mute = None
    if damage is not None and not damage.harmless:
        mute = f"damaged {damage.kind}"
        if damage.kind is DamageKind.MIDDLE:
            wal.close()
            journal, writable = ClosedLog(), None
    state = StateDirectory.open(directory.state_path)
    try:
        store = Store(genesis, records=state.records, machine=machine)
    except (ForeignStateError, RestoreFaultError) as error:
        raise ForeignDirectory(str(error)) from error
    shelf = Shelf(store)
    # the state that a cluster began with is not in its log
    is_blank = genesis.previous != ZERO_HASH and store.is_blank
    applied = None if store.target is not None or is_blank else store.applied_index
    verifier = Ed25519Verifier()
    core = Replica(
        genesis=genesis,
        me=keys.of(genesis)[1],
        signer=directory.signer,
        verifier=verifier,
        records=records,
        mute=mute,
        state=shelf,
        mute_for_good=writable is None,
        own=OwnState(applied, state.records.digest()),
        draw=_DICE.randrange,
        keys=keys,
    )
    shelf.stable(core.stable_index)
    return Recovered(core, verifier, journal, writable, state, store, shelf, damage, mute, keys)
