"""What a replica can show to strangers of a state that it has saved: a backup without its records.

The base is a stable checkpoint whose state the shell holds, or the empty beginning. Above it come
the entries that are final here, of ended epochs and of the present one, up to the newest that a
certificate or an epoch's start proves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dwcp.wire.peer import Certificate, Entry
from dwcp.wire.signing import ZERO_HASH
from dwcp_replica.core.chain import Log
from dwcp_replica.core.epochs.line import Line
from dwcp_replica.core.state import Core


@dataclass(frozen=True, slots=True)
class Outline:
    """See backup.BackupHead and BackupEnd; `certificate` proves the last of `entries`.

    `is_empty`: below the entries there is no state.
    """

    is_empty: bool
    checkpoint: Certificate | None
    body: bytes
    entries: tuple[Entry, ...]
    certificate: Certificate | None


def outline(core: Core, line: Line, saved: int) -> Outline | None:
    """What there is above the saved state at `saved`; None when nothing proves that state now."""
    base = _base(core, line, saved)
    if base is None:
        return None
    checkpoint, body = base
    starts = [record.start_index for record in line.chain.records]
    start = max((s for s in starts if saved <= s <= line.sure), default=saved)
    older = _run(line.history, saved, start)
    if older is None:
        return None
    is_empty = checkpoint is None and core.genesis.previous == ZERO_HASH
    certificate = core.final_certificate
    top = 0 if certificate is None else certificate.header.index
    from_present = not core.waiting and start in (core.record.start_index, saved)
    newer = _run(core.log, start, top) if from_present and top > start else ()
    if newer:
        return Outline(is_empty, checkpoint, body, (*older, *newer), certificate)
    return Outline(is_empty, checkpoint, body, tuple(older), None)


def _base(core: Core, line: Line, saved: int) -> tuple[Certificate | None, bytes] | None:
    """The certificate of the saved state, with the body of its entry."""
    if saved == core.genesis.start_index:
        return None, b""  # genesis tells what that is
    certificate = core.checkpoints.get(saved) or line.checkpoints.get(saved)
    if certificate is None and core.stable is not None and core.low == saved:
        certificate = core.stable
    body = core.log.body_at(saved) or line.history.body_at(saved)
    return None if certificate is None or body is None else (certificate, body)


def _run(log: Log, above: int, upto: int) -> Sequence[Entry] | None:
    """The entries with above < index <= upto, all of them or None."""
    if upto <= above:
        return ()
    entries = [slot.entry for slot in log.slots(above, upto)]
    return entries if len(entries) == upto - above and log.base.index <= above else None
