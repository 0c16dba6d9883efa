"""Where a replica stands, as it tells its shell."""

from __future__ import annotations

from dataclasses import dataclass

from dwcp.wire.peer import Status
from dwcp.wire.records import EpochRecord
from dwcp_replica.core.effects import EvidenceFound


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a replica stands, for status and metrics. Indexes are chain indexes.

    `record` is the newest epoch record, `me` this replica's number in it or None; `peers` go by
    the record's numbers, `outsiders` (learners and former members) by the directory's. `sealed`:
    the epoch has ended here, the next is being agreed on. `waiting`: the start of the epoch is
    being fetched. `waits_since_ms`: since when (core time) the oldest request has been the oldest.
    """

    epoch: int
    view: int
    active: bool
    primary: int
    last: int
    prepared: int
    final: int
    applied: int
    stable: int
    stable_state: bytes
    pending: int
    waits_since_ms: int | None
    mute: str | None
    halted: str | None
    evidence: tuple[EvidenceFound, ...]
    peers: dict[int, Status]
    outsiders: dict[int, Status]
    pre_prepare_log_size: int
    prepare_log_size: int
    commit_log_size: int
    log_base: int
    saved: int
    has_state: bool
    transfer: int | None
    transfer_left: int
    transfer_bytes: int
    record: EpochRecord
    me: int | None
    sealed: bool
    waiting: bool

    def shows_newest(self, applied: int) -> bool:
        """True when what is executed up to `applied` may answer a linearizable read.

        In a sealed epoch others may be at work in the next one, and have confirmed writes there; a
        replica that lacks what came before its epoch has not seen those.
        """
        return not self.sealed and applied >= self.record.start_index
