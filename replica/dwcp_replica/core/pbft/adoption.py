"""Making the log the start of a new view: the bodies it needs, checked before they count.

`recover` works on headers. A liar can show a header whose body nobody has, or whose body no
client signed; an honest replica never held such an entry. So a start is adopted only with every
body in hand and valid, and a VIEW-CHANGE that shows anything else is left out by the new primary
and refused by everyone in a NEW-VIEW (validity: only what a client signed is executed).
"""

from __future__ import annotations

from dataclasses import dataclass

from dwcp.wire.envelope import batch_digest
from dwcp.wire.peer import Bodies, Entry, FetchBodies, Header
from dwcp_replica.core import proposals
from dwcp_replica.core.chain import Branch, Slot
from dwcp_replica.core.state import EARLY_MAX, Core

BODIES_BYTES_MAX = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Adopted:
    """The log is the start now."""


@dataclass(frozen=True, slots=True)
class Lacking:
    """Entries that must come first: bodies of these headers, or the log below the base."""

    headers: tuple[Header, ...]


@dataclass(frozen=True, slots=True)
class Worthless:
    """The chain holds an entry that no honest replica could have held."""

    header: Header


@dataclass(frozen=True, slots=True)
class Mistimed:
    """The view's first entry has a stamp that does not follow its start."""


Outcome = Adopted | Lacking | Worthless | Mistimed


def adopt(core: Core, branch: Branch, view: int, first: Slot | None = None) -> Outcome:
    """Make `branch` my log, or say what stands against it. Halts on a lost final.

    Nothing is written unless it is Adopted: the caller then enters the view in the same step.
    `first` is the view's first entry, where somebody else has made it.

    A log that catch-up has brought beyond the start, with entries of the view itself, stays.
    """
    if core.log.base.term == view and core.log.base.index > branch.tip.index:
        return Adopted()  # it begins below a checkpoint of its own, which a quorum has executed
    following = core.log.slot(branch.tip.index + 1)
    final = core.log.point(core.final)
    if following is not None and following.header.term == view:
        same = first is not None and following.hash == first.hash
        if same and following.header.prev == branch.tip.hash:
            return Adopted()
        return Worthless(following.header)  # its primary began the view twice
    if not branch.contains(final):
        if final.term >= view:  # final here by another beginning of this view
            return Worthless(branch.headers[-1] if branch.headers else own_header(core))
        core.halt(f"a new view's start does not extend what is final here at {core.final}")
        return Lacking(())
    collected = collect(core, branch)
    if not isinstance(collected, Collected):
        return collected
    if first is not None and not proposals.stamp_follows(core, collected.stamp_ms, first):
        return Mistimed()
    slots = collected.slots
    core.replace_above(slots[0].header.index - 1 if slots else branch.tip.index, slots)
    assert core.log.tip.hash == branch.tip.hash, "the log is not the new view's start"
    return Adopted()


def own_header(core: Core) -> Header:
    """An entry of my log, or the stable checkpoint's."""
    held = core.log.slots(core.log.base.index)
    if held or core.stable is None:
        return held[0].header
    return core.stable.header


@dataclass(frozen=True, slots=True)
class Collected:
    """The entries of a branch that the log does not hold, each checked; the tip's stamp."""

    slots: list[Slot]
    stamp_ms: int


def collect(core: Core, branch: Branch) -> Collected | Lacking | Worthless:
    """Gather the bodies of a branch and check them; changes nothing."""
    low = max(branch.base.index, core.log.base.index)
    if branch.hash_at(low) is None or core.log.hash_at(low) != branch.hash_at(low):
        return Lacking(())  # catch-up brings what lies below the checkpoint
    slots: list[Slot] = []
    missing: list[Header] = []
    stamp_ms = core.log.stamp_at(low)
    for header, hash_ in zip(branch.headers, branch.hashes, strict=True):
        if header.index <= low:
            continue
        held = core.log.slot(header.index)
        if held is not None and held.hash == hash_:
            stamp_ms = held.stamp_ms
            continue
        body = body_of(core, header)
        if body is None:
            missing.append(header)
            continue
        slot = proposals.checked(core, Entry(header, body), stamp_ms)
        if slot is None:
            return Worthless(header)
        stamp_ms = slot.stamp_ms
        slots.append(slot)
    return Lacking(tuple(missing)) if missing else Collected(slots, stamp_ms)


def body_of(core: Core, header: Header) -> bytes | None:
    """A body that I hold somewhere: kept from a replaced tail, fetched, or of my CC's branch."""
    if header.batch in core.bodies:
        return core.bodies[header.batch]
    for slot in (*core.cc_branch, *core.log.slots(core.final)):
        if slot.header.batch == header.batch:
            return slot.entry.body
    return None


def ask_bodies(core: Core, to: int, headers: tuple[Header, ...]) -> None:
    """Ask for bodies: one member, or everyone when `to` is myself."""
    if not headers:
        return
    batches = tuple(header.batch for header in headers)
    core.bodies_wanted = set(batches)
    if to == core.me:
        core.broadcast(FetchBodies(batches))
    else:
        core.send(to, FetchBodies(batches))


def on_fetch_bodies(core: Core, sender: int, message: FetchBodies) -> None:
    """Give bodies that I hold, as many as fit one frame."""
    held = {slot.header.batch: slot.entry.body for slot in core.log.slots(core.low)}
    held.update({slot.header.batch: slot.entry.body for slot in core.cc_branch})
    found: list[bytes] = []
    size = 0
    for batch in message.batches[:EARLY_MAX]:
        body = held.get(batch) or core.bodies.get(batch)
        if body is not None and size + len(body) <= BODIES_BYTES_MAX:
            found.append(body)
            size += len(body)
    if found and core.afford(sender, size):
        core.send(sender, Bodies(tuple(found)))


def take_bodies(core: Core, sender: int, message: Bodies) -> bool:
    """Keep bodies that were asked for, known by their digest; True when one was."""
    took = False
    for body in message.bodies:
        batch = batch_digest(body)
        if batch in core.bodies_wanted:
            core.bodies_wanted.discard(batch)
            core.bodies[batch] = body
            took = True
        else:
            core.refuse(sender, message, "not-asked")
    core.trim_bodies()
    return took
