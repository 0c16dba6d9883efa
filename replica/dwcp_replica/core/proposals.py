"""What may stand in an entry: making one, and looking at what others made.

The same rules hold for both protocols (validity: only what a client signed is executed; agreed
time never goes back). The first entry of a term after the first is empty, and so is one that agreed
time asks for (due.py).
"""

from __future__ import annotations

import msgspec

from dwcp.wire.envelope import (
    MAX_ENVELOPE_BYTES,
    Batch,
    batch_digest,
    decode_batch,
    envelope_signing_bytes,
)
from dwcp.wire.peer import Entry, Header
from dwcp_replica.core import due
from dwcp_replica.core.chain import Point, Slot
from dwcp_replica.core.epochs.triggers import switch_fault
from dwcp_replica.core.state import BATCH_BYTES_MAX, BATCH_ENVELOPES_MAX, BODY_BYTES_MAX, Core


def next_batch(core: Core) -> Batch | None:
    """What the leader proposes next: a SWITCH that is due, else what clients wait for.

    After a SWITCH nothing follows: it ends the epoch as soon as it is committed.
    """
    if core.switches:
        return None
    stamp_ms = max(core.log.stamp_ms, core.wall_ms)
    if core.switch_wanted is not None:
        return Batch(stamp_ms, (), core.switch_wanted)
    if not (core.pool.has_unproposed or due.wants_entry(core)):
        return None
    return Batch(stamp_ms, tuple(core.pool.take(BATCH_BYTES_MAX, BATCH_ENVELOPES_MAX)))


def sign_entry(core: Core, batch: Batch) -> Entry:
    """The next entry of my own view, signed."""
    tip = core.log.tip
    body = msgspec.msgpack.encode(batch)
    header = Header(
        epoch=core.record.epoch,
        term=core.view,
        index=tip.index + 1,
        batch=batch_digest(body),
        prev=tip.hash,
        sig=bytes(64),
    )
    sig = core.sign(header.signing_bytes(core.membership.scope))
    return Entry(msgspec.structs.replace(header, sig=sig), body)


def acceptable(core: Core, entry: Entry) -> Slot | str:
    """The entry ready for the log, or the reason why it must not stand there."""
    if entry.header.prev != core.log.tip.hash or entry.header.term < core.log.tip.term:
        return "prev"
    if len(entry.body) > BODY_BYTES_MAX:
        return "body-size"
    if batch_digest(entry.body) != entry.header.batch:
        return "digest"
    try:
        batch = decode_batch(entry.body)
    except msgspec.DecodeError:
        return "body"
    if batch.stamp_ms < core.log.stamp_ms:
        return "stamp"
    if abs(batch.stamp_ms - core.wall_ms) > skew_limit(core, batch):
        return "skew"
    slot = Slot.decoded(entry, batch)
    if any(core.pool.stale(digest) for digest in slot.requests):
        return "executed"
    if not batch.envelopes and batch.switch is None and due.is_due(core, batch.stamp_ms):
        return slot
    return check_envelopes(core, batch) or slot


def skew_limit(core: Core, batch: Batch) -> int:
    """How far a first proposal's stamp may lie from my clock.

    A stamp equal to its predecessor's is what an honest primary with a slow clock must use.
    """
    if batch.stamp_ms == core.log.stamp_ms:
        return 2**63
    return core.record.parameters.max_clock_skew_ms


def check_envelopes(core: Core, batch: Batch) -> str | None:
    """Why a batch's envelopes do not hold; None when each was signed by a known client."""
    if batch.switch is not None:
        return "switch-mixed" if batch.envelopes else switch_fault(core.membership, batch.switch)
    if not batch.envelopes:
        return "empty"
    if len(batch.envelopes) > BATCH_ENVELOPES_MAX:
        return "batch-size"
    if len({envelope.digest() for envelope in batch.envelopes}) < len(batch.envelopes):
        return "twice"
    for envelope in batch.envelopes:
        if envelope.client not in core.client_keys:
            return "client"
        if len(envelope.body) > MAX_ENVELOPE_BYTES:
            return "envelope-size"
        signed = envelope_signing_bytes(core.membership.scope.genesis, envelope.body)
        if not core.membership.verifier.verify(envelope.client, signed, envelope.sig):
            return "client-signature"
    return None


def first_entry(tip: Point, first: Entry) -> Slot | str:
    """A term's first, empty entry, ready for the log, or why it does not hold."""
    header = first.header
    if (header.index, header.prev) != (tip.index + 1, tip.hash):
        return "start"
    if batch_digest(first.body) != header.batch:
        return "digest"
    try:
        batch = decode_batch(first.body)
    except msgspec.DecodeError:
        return "body"
    if batch.envelopes or batch.switch is not None:
        return "not-empty"
    return Slot.decoded(first, batch)


def stamp_follows(core: Core, before_ms: int, first: Slot) -> bool:
    """Agreed time never goes back, and jumps ahead only where an inherited entry did.

    A NEW-VIEW may come late, so that a stamp from the past is no fault.
    """
    limit_ms = core.wall_ms + core.record.parameters.max_clock_skew_ms
    return first.stamp_ms == before_ms or before_ms < first.stamp_ms <= limit_ms


def checked(core: Core, entry: Entry, stamp_ms: int) -> Slot | None:
    """The entry ready for the log; None when its body is not one that a replica accepts.

    Somebody honest took it only with a stamp near its own clock, and clocks go on: a stamp far
    ahead of mine was taken by nobody.
    """
    if len(entry.body) > BODY_BYTES_MAX:
        return None
    try:
        batch = decode_batch(entry.body)
    except msgspec.DecodeError:
        return None
    latest_ms = core.wall_ms + 2 * core.record.parameters.max_clock_skew_ms
    if not stamp_ms <= batch.stamp_ms <= max(latest_ms, stamp_ms):
        return None
    # the first entry of a view is empty, so that an empty batch is as good as a signed one
    inhabited = batch.envelopes or batch.switch is not None
    if inhabited and check_envelopes(core, batch):
        return None
    return Slot.decoded(entry, batch)
