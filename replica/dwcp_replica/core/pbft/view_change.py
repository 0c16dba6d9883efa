"""View change and new view. Castro and Liskov 1999, section 4.4; the start by epochs.md, recover.

A replica that gives a view up writes down, signs and sends what it holds: a VIEW-CHANGE. After
that it signs nothing below the view it asks for. A quorum of VIEW-CHANGEs for one view is its
election certificate, and everybody computes the same start from it, so the new primary has no
choice to abuse. Its first entry is empty: when that is final, so is all that the view inherited.

    active in v --timeout, proof, primary resigns, f+1 ask--> asks for v' > v
    asks for v' --q VIEW-CHANGEs for v' (its primary: NEW-VIEW)--> active in v'
    asks for v' --timer, started once q ask for v' or more--> asks for v'+1
"""

from __future__ import annotations

from enum import Enum

import msgspec

from dwcp.wire.envelope import Batch
from dwcp.wire.peer import (
    Bodies,
    Certificate,
    Election,
    Elections,
    Entry,
    Header,
    NewView,
    ViewChange,
)
from dwcp_replica.core import election_book, evidence, peers, proposals
from dwcp_replica.core.chain import Branch, Point, Slot
from dwcp_replica.core.effects import (
    EnteredRecord,
    ViewChangeReason,
    ViewChangeRecord,
    ViewChangeStarted,
    ViewEntered,
)
from dwcp_replica.core.elections import (
    InvalidError,
    MissingElectionsError,
    refs_for,
    start_of,
    statement,
)
from dwcp_replica.core.pbft import adoption, normal
from dwcp_replica.core.recover import UnsafeStartError
from dwcp_replica.core.state import Core


class Unusable(Enum):
    """Why an election gives no start."""

    WAITING = "a certificate that it names is being fetched"
    INVALID = "it does not hold"


def start(core: Core, view: int, reason: ViewChangeReason) -> None:
    """Give the present view up and ask for `view`."""
    if core.mute is not None or core.halted is not None or core.sealed:
        return
    assert view > core.view, f"views only go up: {core.view} -> {view}"
    core.view = view
    core.active = False
    core.leading = None
    core.worthless.clear()
    core.change_timer_ms = None
    core.view_since_ms = core.now_ms
    if reason in (ViewChangeReason.TIMEOUT, ViewChangeReason.SILENT):
        core.attempts += 1
    core.forget_votes()
    core.my_change = my_change(core)
    core.changes[core.me] = core.my_change
    core.persist(ViewChangeRecord(core.my_change))
    core.broadcast(core.my_change)
    core.emit(ViewChangeStarted(view, reason))
    weigh(core)


def next_view(core: Core) -> int:
    """The next view whose primary is not proven to have lied."""
    view = core.view + 1
    for _ in range(core.n - 1):
        if core.record.primary(view) not in core.evidence:
            return view
        view += 1
    return core.view + 1


def my_change(core: Core) -> ViewChange:
    """What I hold, signed: never made anew for the same view, always resent as it is."""
    low = core.low
    log = tuple(slot.header for slot in core.log.slots(low))
    cc, branch = shown_certificate(core, low)
    base_term = core.stable_point.term if core.stable_point else 0
    refs = {
        *refs_for(log, core.elections, base_term),
        *refs_for(branch, core.elections, base_term),
    }
    change = ViewChange(
        epoch=core.record.epoch,
        view=core.view,
        checkpoint=core.stable,
        log=log,
        cc=cc,
        branch=branch,
        elections=tuple(sorted(refs, key=lambda ref: (ref.term, ref.digest))),
        member=core.me,
        sig=bytes(64),
    )
    sig = core.sign(change.signing_bytes(core.membership.scope))
    return msgspec.structs.replace(change, sig=sig)


def shown_certificate(core: Core, low: int) -> tuple[Certificate | None, tuple[Header, ...]]:
    """My highest CC above the stable checkpoint, with its branch where it has left the log.

    A branch that parts below the stable checkpoint is dead: what is stable contradicts it, and
    nobody could follow a chain that does not start where my statement does.
    """
    cc = core.cc
    if cc is None or cc.header.index <= low:
        return None, ()
    if core.log.hash_at(cc.header.index) == cc.header.hash():
        return cc, ()
    branch = tuple(slot.header for slot in core.cc_branch if slot.header.index > low)
    base = core.stable_point or core.log.base
    if not branch or (branch[0].index, branch[0].prev) != (low + 1, base.hash):
        return None, ()
    return cc, branch


def on_view_change(core: Core, sender: int, message: ViewChange) -> None:
    """Check what another replica states, keep its latest, and see what follows."""
    if message.view < core.view or (message.view == core.view and core.active):
        return  # its next status shows where it stands, and it is sent the NEW-VIEW
    held = core.changes.get(message.member)
    if held is not None and held.view >= message.view:
        return
    try:
        statement(core.membership, message, core.elections)
    except InvalidError as invalid:
        core.refuse(sender, message, str(invalid))
        return
    except MissingElectionsError as missing:
        core.stuck_changes[message.member] = message
        election_book.ask(core, sender, missing)
        return
    core.stuck_changes.pop(message.member, None)
    core.changes[message.member] = message
    if core.active and message.member == core.primary:
        # no further than the next view, whatever a liar asks for: others may not have heard it
        note_resignation(core)
        start(core, next_view(core), ViewChangeReason.JOINED)
        return
    weigh(core)


def note_resignation(core: Core) -> None:
    """A primary resigned: if a lone doubter had its way by it, the next one waits longer."""
    core.doubted_since_ms = None
    if any(c.view > core.view for m, c in core.changes.items() if m != core.primary):
        core.resignations += 1
        core.resigned_ms = core.now_ms


def weigh(core: Core) -> None:
    """Join, start the timer, or lead, as the held VIEW-CHANGEs allow."""
    wanted = sorted(
        (c.view for m, c in core.changes.items() if m != core.me and c.view > core.view),
        reverse=True,
    )
    if len(wanted) > core.f:
        start(core, wanted[core.f], ViewChangeReason.JOINED)
        return
    if core.active:
        return
    # a VIEW-CHANGE for a view counts for every lower one
    asking = [c for c in core.changes.values() if c.view >= core.view]
    if len(asking) >= core.q and core.change_timer_ms is None:
        core.change_timer_ms = core.now_ms
    if core.primary == core.me and core.leading is None:
        ready = [c for c in asking if c.view == core.view]
        if len(ready) >= core.q:
            elect(core, ready)


def elect(core: Core, changes: list[ViewChange]) -> None:
    """As the new primary: form the election certificate and lead from where it says."""
    usable = sorted(
        (c for c in changes if c.member not in core.worthless), key=lambda c: c.member != core.me
    )
    if len(usable) < core.q or usable[0].member != core.me or core.mute is not None:
        return
    if core.transfer is not None or core.stateless:
        return  # it could not tell what is new: the next one leads
    chosen = sorted(usable[: core.q], key=lambda c: c.member)
    core.leading = Election(core.record.epoch, core.view, tuple(chosen))
    core.leading_since_ms = core.now_ms
    lead(core)


def lead(core: Core) -> None:
    """Start my view as soon as I hold every body of the chain it starts from."""
    election = core.leading
    overtaken = core.log.tip.term >= core.view  # catch-up brought entries of my view or later
    if election is None or election.view != core.view or core.active or overtaken:
        core.leading = None
        return
    branch = verified_start(core, core.me, election)
    if isinstance(branch, Unusable):
        return
    match adoption.adopt(core, branch, core.view):
        case adoption.Worthless(header):
            leave_out(core, header)
        case adoption.Mistimed():
            raise AssertionError("a leader makes its own first entry")
        case adoption.Lacking(headers):
            adoption.ask_bodies(core, core.me, headers)
            if headers and core.now_ms - core.leading_since_ms > core.timeout_ms() // 2:
                leave_out(core, headers[0])  # who honestly showed it would have answered
        case adoption.Adopted():
            core.leading = None
            stamp_ms = max(core.log.stamp_ms, core.wall_ms)
            first = proposals.sign_entry(core, Batch(stamp_ms, ()))
            enter(core, NewView(election, first), Slot.of(first), branch.tip)


def leave_out(core: Core, header: Header) -> None:
    """Go on without the VIEW-CHANGEs that show an entry which does not exist."""
    core.leading = None
    left_out = False
    for member, change in core.changes.items():
        if member != core.me and (header in change.log or header in change.branch):
            core.worthless.add(member)
            core.refuse(member, change, "worthless-entry")
            left_out = True
    if left_out:
        weigh(core)


def verified_start(core: Core, sender: int, election: Election) -> Branch | Unusable:
    """The start an election fixes, or why there is none (yet)."""
    try:
        return start_of(core.membership, election, core.elections)
    except MissingElectionsError as missing:
        election_book.ask(core, sender, missing)
        return Unusable.WAITING
    except InvalidError as invalid:
        core.refuse(sender, election, str(invalid))
    except UnsafeStartError as unsafe:
        core.halt(str(unsafe))
    return Unusable.INVALID


def on_new_view(core: Core, sender: int, message: NewView) -> None:
    """Check a new view in full, fetch what it needs, and enter it."""
    view, header = message.election.view, message.first.header
    if view < max(core.view, core.log.tip.term) or core.halted is not None:
        return
    if core.record.primary(view) == core.me:
        return  # what I lead, I began myself
    if header.term != view or not core.membership.header_holds(header):
        core.refuse(sender, message, "header-signature")
        return
    if view == core.view and core.active:
        evidence.check_header(core, header)
        return
    core.new_views_wanted[core.record.primary(view)] = (message, sender)
    take_new_view(core)


def take_new_view(core: Core) -> None:
    """Enter a view that is waiting, if all that it needs is here now: the lowest one first.

    One is kept for each primary, so that a liar's can not push out an honest one's.
    """
    waiting = sorted(core.new_views_wanted.items(), key=lambda kept: kept[1][0].election.view)
    for primary, (message, sender) in waiting:
        if overtaken(core, message.election.view) or not try_new_view(core, message, sender):
            core.new_views_wanted.pop(primary, None)


def overtaken(core: Core, view: int) -> bool:
    """True when a view is behind me: by what I asked for or entered, or by what my log holds."""
    entered = view == core.view and core.active
    return entered or view < max(core.view, core.log.tip.term) or core.halted is not None


def try_new_view(core: Core, message: NewView, sender: int) -> bool:
    """Enter the view or ask for what it needs; False when it never will be entered."""
    branch = verified_start(core, sender, message.election)
    if isinstance(branch, Unusable):
        return branch is Unusable.WAITING
    if evidence.check_header(core, message.first.header):
        return False
    slot_or_reason = first_entry(branch, message.first)
    if isinstance(slot_or_reason, str):
        core.refuse(sender, message, slot_or_reason)
        return False
    match adoption.adopt(core, branch, message.election.view, slot_or_reason):
        case adoption.Worthless():
            core.refuse(sender, message, "worthless-entry")
            return False
        case adoption.Lacking(headers):
            adoption.ask_bodies(core, sender, headers)
            return True
        case adoption.Mistimed():
            core.refuse(sender, message, "stamp")
            return False
        case adoption.Adopted():
            enter(core, message, slot_or_reason, branch.tip)
            return True


def first_entry(branch: Branch, first: Entry) -> Slot | str:
    """The new view's first entry, ready for the log, or why it does not hold."""
    return proposals.first_entry(branch.tip, first)


def enter(core: Core, message: NewView, first: Slot, start: Point) -> None:
    """Take part in a view whose start is my log; its first entry is appended here.

    Where the log begins with a checkpoint of this view, that entry lies below.
    """
    view = message.election.view
    core.view = view
    core.active = True
    core.view_since_ms = core.progress_ms = core.now_ms
    core.change_timer_ms = None
    core.new_view = message
    core.leading = None
    core.worthless.clear()
    core.elections_wanted.clear()
    core.bodies_wanted.clear()
    core.view_start = first.header.index
    core.prepared = core.final
    core.forget_votes()
    core.changes = {m: c for m, c in core.changes.items() if c.view > view}
    election_book.remember(core, message.election, start)
    election_book.save(core, message.election.digest())
    lies_below = first.header.index <= core.log.base.index
    shown = message.first if lies_below else None
    core.persist(EnteredRecord(view, message.election.digest(), shown))
    if not lies_below and core.log.hash_at(core.view_start) != first.hash:
        core.append(first.entry, first)
    core.heard_ms[core.primary] = core.now_ms
    core.emit(ViewEntered(view, core.primary))
    if core.primary == core.me:
        core.broadcast(message)
    else:
        if core.mute is None and not lies_below:
            core.broadcast(core.vote_prepare(first.header))
        peers.forward_waiting(core)
    normal.settle(core)


# --- fetching what statements refer to --------------------------------------------------------


def on_elections(core: Core, sender: int, message: Elections) -> None:
    """Take certificates that I asked for, and retry what waited for them."""
    if not election_book.on_elections(core, sender, message):
        return  # nothing new: the next heartbeat asks again
    for member in sorted(core.stuck_changes):
        on_view_change(core, sender, core.stuck_changes[member])
    take_new_view(core)


def on_bodies(core: Core, sender: int, message: Bodies) -> None:
    """Take bodies that I asked for and go on with the view that needs them."""
    if adoption.take_bodies(core, sender, message):
        lead(core)
        take_new_view(core)
