"""Where a cluster goes back to after a fail-over, and how soon (epochs.md, Liveness). Pure.

The admin's order may hold a protocol: the record says so, in every epoch until the admin releases
it, so that no restart and no measurement forgets it. Otherwise the protocol that the cluster was
made with is its home, unless its members measure their network and decide by that. A fail-over
leaves home for PBFT; the way back is asked for by each member when its own cool-down is over.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from dwcp.wire.records import EpochRecord, Protocol
from dwcp_replica.core.epochs.cooldown import Cooldown


def home(genesis: EpochRecord, record: EpochRecord) -> Protocol | None:
    """The protocol that should run while nothing stands against it; None: the network decides."""
    if record.forced is not None:
        return record.forced
    return None if genesis.parameters.modes.detect else genesis.protocol


def fell_back(genesis: EpochRecord, before: EpochRecord, after: EpochRecord) -> bool:
    """True when Raft was given up although it is still what should run."""
    left = before.protocol == "raft" and after.protocol == "pbft"
    return left and home(genesis, after) == "raft"


def followed(
    cooldown: Cooldown, genesis: EpochRecord, before: EpochRecord, after: EpochRecord, now_ms: int
) -> Cooldown:
    """The cool-down after one more record."""
    if before.protocol == after.protocol:
        return cooldown
    failed = fell_back(genesis, before, after)
    return cooldown.failed(now_ms) if failed else cooldown.switched(now_ms)


def resumed(records: Sequence[EpochRecord], now_ms: int) -> Cooldown:
    """The cool-down of a process that has just started.

    When the records were decided is not known: every fail-over counts, and the wait begins now.
    """
    failures = sum(fell_back(records[0], before, after) for before, after in pairwise(records))
    return Cooldown(now_ms, failures) if failures else Cooldown()
