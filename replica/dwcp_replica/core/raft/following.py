"""The follower: checking what a leader sends, taking it over, acking it (epochs.md, ACK).

In a term that I take part in, entries only ever extend my log; two entries that the leader signed
for one place convict it. A chain from which a new term starts is gathered beside the log (staged)
until the term's first entry is there, and replaces my tail in one step.
"""

from __future__ import annotations

from typing import Final

from dwcp.wire.envelope import batch_digest
from dwcp.wire.peer import Append, Appended, Certificate, Entry, Header, TermStart
from dwcp_replica.core import catchup, election_book, evidence, proposals
from dwcp_replica.core.chain import Point, Slot
from dwcp_replica.core.elections import MissingElectionsError
from dwcp_replica.core.raft import leading, role
from dwcp_replica.core.raft.state import Staged
from dwcp_replica.core.state import Core

STAGED_MAX: Final = 2 * leading.BEHIND_MAX
STAGED_BYTES_MAX: Final = 64 * 1024 * 1024


def on_append(core: Core, sender: int, message: Append) -> None:
    """Follow the leader of a term: take its entries and certificates, and answer."""
    if message.epoch != core.record.epoch:
        return core.refuse(sender, message, "epoch")
    if core.record.primary(message.term) != sender:
        return core.refuse(sender, message, "not-its-term")
    if message.term < core.view:
        return answer(core, sender, message, core.log.last, rejected=True)
    if sender in core.evidence:
        return core.refuse(sender, message, "convicted")
    if not follow(core, sender, message):
        return None
    if core.active:  # one that does not get its term to begin is not waited for
        core.raft.heard_ms = core.raft.waiting_ms = core.now_ms
    if hash_at(core, message.prev_index) != message.prev_hash:
        return answer_with_hint(core, sender, message)
    upto = take_entries(core, sender, message)
    if core.halted is not None:
        return None
    join(core, message.term)
    take_certificates(core, sender, message.certificates)
    acked = ack_again(core, sender) if message.beat else ack(core, sender, message, upto)
    if message.beat or (message.entries and not acked):
        answer(core, sender, message, upto, rejected=False)
    return None


def follow(core: Core, sender: int, message: Append) -> bool:
    """True when the sender leads the term by a certificate that holds; I am in that term then."""
    term = message.term
    for election in message.elections:
        election_book.keep(core, sender, election)
    if role.start_of_term(core, term) is None:
        core.refuse(sender, message, "no-election")
        answer(core, sender, message, core.log.last, rejected=True)  # it shows it again
        return False
    if term > core.view:
        role.step_into(core, term)
        role.rearm(core)
    return True


# --- the chain as it will be ------------------------------------------------------------------


def staged(core: Core) -> Staged | None:
    """What is gathered for the present term, as long as my log still holds what it follows."""
    kept = core.raft.staged
    if kept is None or kept.term != core.view or core.active:
        return None
    if core.log.hash_at(kept.above) != kept.slots[0].header.prev:
        return None  # catch-up has changed the log meanwhile
    return kept


def slot_at(core: Core, index: int) -> Slot | None:
    """The entry at `index` of the chain that I am taking over, or of my log."""
    kept = staged(core)
    if kept is None or index <= kept.above:
        return core.log.slot(index)
    offset = index - kept.above - 1
    return kept.slots[offset] if offset < len(kept.slots) else None


def hash_at(core: Core, index: int) -> bytes | None:
    """h(index) of that chain, or None."""
    slot = slot_at(core, index)
    if slot is not None:
        return slot.hash
    base = core.log.base
    return base.hash if index == base.index else None


def point_at(core: Core, index: int) -> Point:
    """The place at `index` of that chain, which is held."""
    slot = slot_at(core, index)
    return core.log.point(index) if slot is None else Point(index, slot.hash, slot.header.term)


# --- entries ---------------------------------------------------------------------------------


def take_entries(core: Core, sender: int, message: Append) -> int:
    """Take entries in order, as far as they hold; the index up to which mine are the leader's."""
    at = message.prev_index
    for entry in message.entries:
        header = entry.header
        if header.index != at + 1 or header.prev != hash_at(core, at):
            core.refuse(sender, message, "link")
            break
        if hash_at(core, header.index) != header.hash():
            reason = take_one(core, sender, message.term, entry)
            if reason is not None:
                core.refuse(sender, message, reason)
                break
        at = header.index
    return at


def take_one(core: Core, sender: int, term: int, entry: Entry) -> str | None:
    """Take the entry that follows what I hold; why not, else None."""
    header = entry.header
    if not core.membership.header_holds(header):
        return "signature"
    evidence.check_header(core, header)  # also against the leader of an earlier term
    if sender in core.evidence:
        return "equivocation"
    if core.active:
        return extend(core, entry)
    return stage(core, sender, term, entry)


def extend(core: Core, entry: Entry) -> str | None:
    """In a term that I take part in: strict extension, nothing else."""
    header = entry.header
    if header.term != core.view or header.index != core.log.last + 1:
        return "not-an-extension"
    if header.index > core.high:
        return "watermark"
    slot_or_reason = proposals.acceptable(core, entry)
    if isinstance(slot_or_reason, str):
        return slot_or_reason
    core.append(entry, slot_or_reason)
    return None


def stage(core: Core, sender: int, term: int, entry: Entry) -> str | None:
    """Gather the chain from which the term starts; with its first entry it becomes my log."""
    header = entry.header
    below = point_at(core, header.index - 1)
    if not below.term <= header.term <= term:
        return "term"
    if header.term > below.term and not starts_at(core, sender, header, below):
        return "elections-missing" if header.term < term else "start"
    below_slot = slot_at(core, below.index)
    at_base = core.log.stamp_at(below.index)
    stamp_ms = at_base if below_slot is None else below_slot.stamp_ms
    if batch_digest(entry.body) != header.batch:
        return "digest"
    if header.term == term:
        first = proposals.first_entry(below, entry)
        if isinstance(first, str):
            return first
        if not proposals.stamp_follows(core, stamp_ms, first):
            return "stamp"
        return install(core, term, below, first)
    slot = proposals.checked(core, entry, stamp_ms)
    return "worthless-entry" if slot is None else gather(core, term, below.index, slot)


def starts_at(core: Core, sender: int, header: Header, below: Point) -> bool:
    """True when the term of this header is known to begin above `below`; else it is asked for."""
    if header.term == 1:
        start = role.start_of_term(core, 1)
        return start is not None and (start[1].index, start[1].hash) == (below.index, below.hash)
    known = [start for election, start in core.elections.values() if election.view == header.term]
    if any((start.index, start.hash) == (below.index, below.hash) for start in known):
        return True
    question = (TermStart(header.term, below.hash),)
    election_book.ask(core, sender, MissingElectionsError((), question))
    return False


def gather(core: Core, term: int, below: int, slot: Slot) -> str | None:
    """Keep one more entry of the start, within bounds."""
    kept = staged(core)
    if kept is None or below < kept.above:
        kept = Staged(term, below)
    size = kept.bytes + len(slot.entry.body)
    del kept.slots[below - kept.above :]
    if len(kept.slots) >= STAGED_MAX or size > STAGED_BYTES_MAX:
        core.raft.staged = None
        return "staged-overflow"
    kept.slots.append(slot)
    kept.bytes = size
    core.raft.staged = kept
    return None


def install(core: Core, term: int, below: Point, first: Slot) -> str | None:
    """Make the gathered chain my log, and take part in the term."""
    election, start = role.start_of_term(core, term) or (None, None)
    if election is None or start is None or (start.index, start.hash) != (below.index, below.hash):
        return "start"
    kept = staged(core)
    keep, slots = (below.index, []) if kept is None else (kept.above, list(kept.slots))
    slots = slots[: below.index - keep]
    if keep < core.final:
        core.halt(f"the start of term {term} does not extend what is final here at {core.final}")
        return "halted"
    core.replace_above(keep, slots)
    for digest in list(core.elections):
        catchup.save_if_mine(core, digest)
    role.enter(core, election, start, first)
    return None


def join(core: Core, term: int) -> None:
    """Take part in a term whose first entries catch-up has brought."""
    election, start = role.start_of_term(core, term) or (None, None)
    if core.active or election is None or start is None or core.primary == core.me:
        return
    base = core.log.base
    if core.log.tip.term != term:
        return
    if base.term == term and base.index > start.index:
        role.enter(core, election, start, None)
        return
    first = core.log.slot(start.index + 1)
    follows = core.log.hash_at(start.index) == start.hash
    if follows and first is not None and first.header.term == term:
        role.enter(core, election, start, first)


# --- votes and certificates --------------------------------------------------------------------


def signs(core: Core, leader: int) -> bool:
    """True when this replica votes in the present term of this leader."""
    able = core.active and core.mute is None and not core.sealed
    return able and leader not in core.evidence


def ack(core: Core, leader: int, message: Append, upto: int) -> bool:
    """Ack what a message brought of this term, above what a CC covers; True when there was any."""
    return ack_between(core, leader, message.prev_index, upto)


def ack_again(core: Core, leader: int) -> bool:
    """After a heartbeat: every ack that no CC covers, and the cert-ack. They may have been lost."""
    if signs(core, leader):
        cert_ack(core, leader)
    return ack_between(core, leader, core.prepared, core.log.last)


def ack_between(core: Core, leader: int, above: int, upto: int) -> bool:
    """Ack my entries of this term with above < index <= upto; True when there was one."""
    if not signs(core, leader):
        return False
    slots = core.log.slots(max(above, core.prepared, core.view_start - 1), upto)
    for slot in slots:
        core.send(leader, core.vote_prepare(slot.header))
    return bool(slots)


def take_certificates(core: Core, sender: int, shown: tuple[Certificate, ...]) -> None:
    """Take a CC of my own acked log, and final certificates of whatever I hold."""
    for certificate in shown:
        header = certificate.header
        if core.log.hash_at(header.index) != header.hash():
            continue  # not here yet: it is shown again
        if certificate.kind == "prepare" and header.index > core.prepared:
            take_cc(core, sender, certificate)
        elif certificate.kind == "commit" and header.index > core.final:
            if core.membership.certificate_holds(certificate):
                core.set_final(certificate)
            else:
                core.refuse(sender, certificate, "certificate")


def take_cc(core: Core, sender: int, certificate: Certificate) -> None:
    """A CC of the present term for an entry of my log: keep it durably, then cert-ack it."""
    header = certificate.header
    if not core.active or header.term != core.view:
        return None
    if not core.membership.certificate_holds(certificate):
        return core.refuse(sender, certificate, "certificate")
    held = core.cc.header if core.cc is not None else None
    if held is None or (header.term, header.index) > (held.term, held.index):
        core.set_cc(certificate)  # else known from before the log began anew at a checkpoint
    core.prepared = header.index
    if core.membership.decides("prepare"):
        if header.index > core.final:
            core.set_final(certificate)
    elif header.index > core.final:
        cert_ack(core, sender)
    return None


def cert_ack(core: Core, leader: int) -> None:
    """Say that I hold the highest CC of this term, unless its entry is final already."""
    cc = core.cc
    if cc is None or cc.header.term != core.view or core.membership.decides("prepare"):
        return
    held = core.log.hash_at(cc.header.index) == cc.header.hash()
    if held and cc.header.index > core.final and signs(core, leader):
        core.send(leader, core.vote_commit(cc.header))


# --- answers ---------------------------------------------------------------------------------


def answer(core: Core, sender: int, message: Append, index: int, *, rejected: bool) -> None:
    """Say where I stand, for the leader's flow control."""
    held = core.log.nearest(index, core.view)
    core.send(
        sender,
        Appended(
            epoch=core.record.epoch,
            term=core.view,
            index=index,
            rejected=rejected,
            hint_term=held.term,
            prepared=core.prepared,
            final=core.final,
            beat=message.beat,
        ),
    )


def answer_with_hint(core: Core, sender: int, message: Append) -> None:
    """I do not hold what the entries follow: where our logs may still be the same."""
    near = core.log.nearest(message.prev_index - 1, message.prev_term)
    core.send(
        sender,
        Appended(
            epoch=core.record.epoch,
            term=core.view,
            index=near.index,
            rejected=True,
            hint_term=near.term,
            prepared=core.prepared,
            final=core.final,
            beat=message.beat,
        ),
    )
