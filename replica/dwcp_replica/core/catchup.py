"""Catch-up: a replica that lags fetches final entries and checks them by the hash chain.

A final certificate, or a stable checkpoint, proves its entry and everything below it; so one
certificate covers a whole run of entries, and it does not matter who sent them. Answers from
liars fail the check and another peer is asked.
"""

from __future__ import annotations

from typing import Final

import msgspec

from dwcp.wire.envelope import (
    MAX_ENVELOPE_BYTES,
    Envelope,
    batch_digest,
    envelope_signing_bytes,
)
from dwcp.wire.peer import AnyElection, Certificate, Entries, Entry, Fetch, Status
from dwcp_replica.core import checkpoints, election_book, evidence, state_source, transfer
from dwcp_replica.core.chain import Slot
from dwcp_replica.core.state import Core

ENTRIES_MAX: Final = 512
ENTRIES_BYTES_MAX: Final = 4 * 1024 * 1024
LINKS_MAX: Final = 16_384
FETCH_AGAIN_MS: Final = 500


def envelope_holds(core: Core, envelope: Envelope) -> bool:
    """True when a known client signed the envelope and it is within the size limit."""
    if envelope.client not in core.client_keys or len(envelope.body) > MAX_ENVELOPE_BYTES:
        return False
    signed = envelope_signing_bytes(core.membership.scope.genesis, envelope.body)
    return core.membership.verifier.verify(envelope.client, signed, envelope.sig)


def pursue(core: Core) -> None:
    """Ask one peer that is further for what is missing; another one when no answer comes."""
    if core.transfer is not None:
        transfer.pursue(core)
    elif core.stateless and core.stable is None:
        transfer.ask_checkpoint(core)
    elif core.stateless:  # catch-up brought a checkpoint before anybody had shown one
        transfer.begin_at_stable(core)
    starts = {m: start for m, s in core.peers.items() if (start := wanted_from(core, s))}
    waited = core.fetch_since_ms
    if not starts or (waited is not None and core.now_ms - waited < patience_ms(core)):
        return
    core.fetch_from = min(starts, key=lambda m: (m <= core.fetch_from, m))
    core.fetch_since_ms = core.now_ms
    core.fetch_asked.add(core.fetch_from)
    core.send(core.fetch_from, Fetch(core.record.epoch, starts[core.fetch_from]))


def patience_ms(core: Core) -> int:
    """How long an answer may take before another peer is asked too; a late one still counts."""
    return max(FETCH_AGAIN_MS, core.record.parameters.request_timeout_ms // 2)


def stalled_ms(core: Core) -> int:
    """How long nothing may become final before a replica fetches: it must not give its primary up
    for what only it has lost."""
    return min(FETCH_AGAIN_MS, core.record.parameters.request_timeout_ms // 2)


def wanted_from(core: Core, status: Status) -> int | None:
    """From where on a peer that stands there could help; None when it is not needed.

    A small gap is closed by the votes that are on their way: only a stalled one needs fetching.
    """
    stalled = not core.active or core.now_ms - core.progress_ms >= stalled_ms(core)
    if status.final > core.final and (stalled or status.final > core.log.last):
        return core.final + 1
    if core.low < status.stable <= core.final and stalled:
        return status.stable
    return None


def on_fetch(core: Core, sender: int, message: Fetch) -> None:
    """Serve final entries from my log, with the certificate that proves them.

    A run that starts below the stable checkpoint ends at it or before: then its certificate is
    a checkpoint, and the receiver needs no election certificates for what it covers.
    """
    if message.epoch != core.record.epoch:
        return core.refuse(sender, message, "epoch")
    if message.start > core.final:
        return None
    if message.start <= core.log.base.index:
        return state_source.show_checkpoint(core, sender)
    entries, size = run_from(core, message.start)
    last = entries[-1].header.index
    certificate = certificate_from(core, last)
    if certificate is None or not core.afford(sender, size):
        return None
    links = tuple(slot.header for slot in core.log.slots(last, certificate.header.index))
    terms: set[int] = set()
    if certificate.kind != "checkpoint" or links:
        terms = {entry.header.term for entry in entries}
    elections = elections_of(core, terms)
    core.send(sender, Entries(tuple(entries), links, certificate, elections))
    return None


def run_from(core: Core, start: int) -> tuple[list[Entry], int]:
    """Final entries from `start` on, and their bytes: up to a stable checkpoint if one fits."""
    upto = core.low if start <= core.low else core.final
    entries: list[Entry] = []
    size = 0
    for slot in core.log.slots(start - 1, min(upto, start - 1 + ENTRIES_MAX)):
        size += len(slot.entry.body) + 256
        if entries and size > ENTRIES_BYTES_MAX:
            break
        entries.append(slot.entry)
    ends = [n for n, entry in enumerate(entries, 1) if entry.header.index in core.checkpoints]
    return (entries[: ends[-1]] if ends and upto == core.low else entries), size


def certificate_from(core: Core, index: int) -> Certificate | None:
    """The lowest certificate that covers `index`: a stable checkpoint, or the newest final."""
    interval = core.interval
    first = index if index % interval == 0 else index + interval - index % interval
    for at in range(first, core.low + 1, interval):
        if at in core.checkpoints:
            return core.checkpoints[at]
    final = core.final_certificate
    return final if final is not None and final.header.index >= index else None


def elections_of(core: Core, terms: set[int]) -> tuple[AnyElection, ...]:
    """The certificates with which these terms of my log began, newest first within a frame."""
    found: list[AnyElection] = []
    room = election_book.SHOWN_BYTES_MAX
    for election, start in sorted(core.elections.values(), key=lambda kept: -kept[0].view):
        if election.view in terms and core.log.hash_at(start.index) == start.hash:
            room -= election_book.size_bytes(election)
            if room < 0:
                break
            found.append(election)
    return tuple(reversed(found))


def on_entries(core: Core, sender: int, message: Entries) -> None:
    """Check an answer from end to end, then take its entries as final."""
    if sender not in core.fetch_asked:
        return core.refuse(sender, message, "not-asked")
    reason = chain_fault(core, message)
    if reason is not None:
        return core.refuse(sender, message, reason)
    slots: list[Slot] = []
    for entry in message.entries:
        if core.log.hash_at(entry.header.index) != entry.header.hash():
            try:
                slots.append(Slot.of(entry))
            except msgspec.DecodeError:
                return core.refuse(sender, message, "body")
    core.fetch_asked.clear()  # a bad answer leaves the question open
    waited_since_ms, core.fetch_since_ms = core.fetch_since_ms, None
    if slots and votes_for_others(core, slots[0].header.index):
        core.leave_view = True  # first, and durably; what is final is fetched again
        return None
    before = (core.final, core.low)
    take(core, sender, message, slots)
    if (core.final, core.low) == before:
        core.fetch_since_ms = waited_since_ms  # else a liar that claims more is asked without end
    pursue(core)
    return None


def chain_fault(core: Core, message: Entries) -> str | None:
    """Why an answer proves nothing; None when every hash, digest and signature holds."""
    if not message.entries or len(message.entries) > ENTRIES_MAX or len(message.links) > LINKS_MAX:
        return "size"
    certificate = message.certificate
    if not core.membership.decides(certificate.kind) or not core.membership.certificate_holds(
        certificate
    ):
        return "certificate"
    first = message.entries[0].header
    if first.index > core.final + 1:
        return "gap"
    if first.index <= core.log.base.index:
        return "cut"
    prev = core.log.hash_at(first.index - 1)
    index = first.index
    for header in (*(entry.header for entry in message.entries), *message.links):
        if header.prev != prev or header.index != index:
            return "link"
        if not core.membership.header_holds(header):
            return "header-signature"
        prev, index = header.hash(), index + 1
    if prev != certificate.header.hash():
        return "certificate-entry"
    if any(batch_digest(e.body) != e.header.batch for e in message.entries):
        return "digest"
    return None


def votes_for_others(core: Core, first: int) -> bool:
    """True when I have voted in the present view for entries that are replaced from `first` on.

    In this view I must not vote for anything else (epochs.md, ACK: strict extension only).
    """
    mine = core.log.slots(first - 1)
    votes = core.active and core.mute is None
    return votes and any(slot.header.term == core.view for slot in mine)


def take(core: Core, sender: int, message: Entries, slots: list[Slot]) -> None:
    """Replace what differs and make the run final as far as it goes."""
    for slot in slots:
        evidence.check_header(core, slot.header)  # a leader that signed both is convicted
    if slots:
        core.replace_above(slots[0].header.index - 1, slots)
        core.yield_to_log()
    for election in message.elections:
        if election_book.keep(core, sender, election):
            save_if_mine(core, election.digest())
    certificate = message.certificate
    last = message.entries[-1].header.index
    if last > core.final:
        core.set_final(certificate, last)
    if certificate.kind == "checkpoint":
        checkpoints.set_stable(core, certificate)
    waiting = core.checkpoint_waiting
    if waiting is not None:
        core.checkpoint_waiting = None
        checkpoints.set_stable(core, waiting)


def save_if_mine(core: Core, digest: bytes) -> None:
    """Make a certificate durable when a term of my log began with it."""
    election, start = core.elections[digest]
    following = core.log.slot(start.index + 1)
    on_my_log = core.log.hash_at(start.index) == start.hash
    if on_my_log and following is not None and following.header.term == election.view:
        election_book.save(core, digest)
