"""Elections: who may be voted for, and what a vote binds (epochs.md, VOTE; Ongaro 2014, 3.4).

Pre-vote (9.6): a member asks whether it would be elected before it raises its term, and nobody
says yes who hears a leader that does its work. A leader that hands over, or that lets a member of
a higher term in, signs a Transfer: with it others do not wait for its silence (3.10).
"""

from __future__ import annotations

from typing import Final

from dwcp.wire.envelope import Batch
from dwcp.wire.peer import (
    Elections,
    Header,
    PreVote,
    Transfer,
    Vote,
    VoteCertificate,
    VoteRequest,
    VoteSig,
    elect_signing_bytes,
)
from dwcp_replica.core import election_book, proposals
from dwcp_replica.core.chain import Branch, Point, Slot
from dwcp_replica.core.effects import (
    TermRecord,
    ViewChangeReason,
    ViewChangeStarted,
)
from dwcp_replica.core.elections import (
    InvalidError,
    MissingElectionsError,
    candidate_log,
    refs_for,
)
from dwcp_replica.core.raft import leading, overdue, role
from dwcp_replica.core.raft.state import Campaign
from dwcp_replica.core.state import Core

TERM_JUMP_MAX: Final = 2**20
"""How far above mine a term may be that I vote in: liars can not use the numbers up."""


# --- standing --------------------------------------------------------------------------------


def stand(
    core: Core, reason: ViewChangeReason, transfer: Transfer | None = None, above: int = 0
) -> None:
    """Ask whether I would be elected in my next term; with a transfer, ask for it at once."""
    role.rearm(core)
    term = next_term(core, above)
    stateless = core.transfer is not None or core.stateless
    if term is None or core.mute is not None or core.sealed or stateless:
        return
    campaign = core.raft.campaign
    tip = core.log.tip
    if campaign is None or not campaign.pre or (campaign.term, campaign.last) != (term, tip):
        campaign = core.raft.campaign = Campaign(term, tip, reason, transfer)
        campaign.grants[core.me] = b""
    if transfer is None:
        core.broadcast(request(core, campaign))
        check_pre_votes(core)
    else:
        run(core, campaign)


def next_term(core: Core, above: int) -> int | None:
    """My lowest term above the present one, above `above`, and above what f+1 say they are in.

    None when the record gives me no term.
    """
    others = sorted((*core.raft.terms.values(), core.view), reverse=True)
    seen = max(above, others[min(core.f, len(others) - 1)])
    return own_term(core, max(core.view, min(seen, core.view + TERM_JUMP_MAX - 2 * core.n)))


def own_term(core: Core, above: int) -> int | None:
    """The lowest term above `above` that belongs to me."""
    for term in range(above + 1, above + 1 + 2 * core.n):
        if core.record.primary(term) == core.me:
            return term
    return None


def request(core: Core, campaign: Campaign) -> VoteRequest:
    """My log, for others to look at."""
    log = tuple(slot.header for slot in core.log.slots(core.low))
    base_term = core.stable_point.term if core.stable_point else 0
    return VoteRequest(
        epoch=core.record.epoch,
        term=campaign.term,
        pre=campaign.pre,
        checkpoint=core.stable,
        log=log,
        elections=refs_for(log, core.elections, base_term),
        transfer=campaign.transfer,
    )


def on_pre_vote(core: Core, sender: int, message: PreVote) -> None:
    """Count who would vote for me; nothing hangs on it but whether I try."""
    if message.epoch != core.record.epoch:
        return core.refuse(sender, message, "epoch")
    if 0 <= sender < core.n:
        core.raft.terms[sender] = message.view
    campaign = core.raft.campaign
    if campaign is None or not campaign.pre or message.term != campaign.term:
        return None
    if message.granted:
        campaign.grants[sender] = b""
        check_pre_votes(core)
    return None


def check_pre_votes(core: Core) -> None:
    """Raise my term once a quorum would vote for me, as long as my log is what they looked at."""
    campaign = core.raft.campaign
    if campaign is None or not campaign.pre or len(campaign.grants) < core.q:
        return
    if campaign.term > core.view and campaign.last == core.log.tip:
        run(core, campaign)


def run(core: Core, campaign: Campaign) -> None:
    """Become a candidate: my own vote first, and durably."""
    core.attempts += 1
    mine = give_vote(core, campaign.term, campaign.last)
    campaign.pre = False
    campaign.grants = {core.me: mine.sig}
    core.raft.campaign = campaign
    core.emit(ViewChangeStarted(campaign.term, campaign.reason))
    core.broadcast(request(core, campaign))
    check_votes(core)


def on_vote(core: Core, sender: int, message: Vote) -> None:
    """Count a vote for me: only votes that bind the same log add up."""
    campaign = core.raft.campaign
    if message.epoch != core.record.epoch:
        return core.refuse(sender, message, "epoch")
    if campaign is None or campaign.pre or message.term != campaign.term:
        return None  # late
    last = campaign.last
    if (message.last_term, message.last_index, message.last_hash) != (
        last.term,
        last.index,
        last.hash,
    ):
        return core.refuse(sender, message, "another-log")
    signed = message.signing_bytes(core.membership.scope)
    if not core.membership.signed(message.member, signed, message.sig):
        return core.refuse(sender, message, "signature")
    campaign.grants[message.member] = message.sig
    return check_votes(core)


def check_votes(core: Core) -> None:
    """Lead once a quorum has voted for me."""
    campaign = core.raft.campaign
    if campaign is None or campaign.pre or len(campaign.grants) < core.q:
        return
    if campaign.term != core.view or campaign.last != core.log.tip:
        core.raft.campaign = None  # catch-up has changed the log that the votes bind
        return
    last = campaign.last
    voters = sorted(campaign.grants, key=lambda member: (member != core.me, member))[: core.q]
    election = VoteCertificate(
        epoch=core.record.epoch,
        view=campaign.term,
        last_term=last.term,
        last_index=last.index,
        last_hash=last.hash,
        votes=tuple(VoteSig(m, campaign.grants[m]) for m in sorted(voters)),
    )
    stamp_ms = max(core.log.stamp_ms, core.wall_ms)
    first = proposals.sign_entry(core, Batch(stamp_ms, ()))
    role.enter(core, election, last, Slot.of(first))
    leading.begin(core)


# --- voting ----------------------------------------------------------------------------------


def on_vote_request(core: Core, sender: int, message: VoteRequest) -> None:
    """Vote, or say whether I would."""
    if message.epoch != core.record.epoch:
        return core.refuse(sender, message, "epoch")
    if core.record.primary(message.term) != sender:
        return core.refuse(sender, message, "not-its-term")
    if core.mute is not None or core.sealed:
        return None
    if not message.pre and vote_again(core, sender, message):
        return None
    reason = objection(core, sender, message)
    if message.pre:
        granted = reason is None
        core.send(sender, PreVote(core.record.epoch, message.term, granted, core.view))
    if reason is not None:
        return core.refuse(sender, message, reason)
    if not message.pre:
        core.send(sender, give_vote(core, message.term, shown_tip(core, message)))
        role.rearm(core)
    return None


def objection(core: Core, sender: int, message: VoteRequest) -> str | None:
    """Why I do not vote for a candidate; None when I do."""
    if message.term <= core.view:
        return "term"
    if message.term > core.view + TERM_JUMP_MAX:
        return "far-term"
    if sender in core.evidence:
        return "convicted"
    if has_leader(core) and not transferred(core, sender, message.transfer):
        return "leader-lives"
    try:
        shown = candidate_log(core.membership, message, core.elections)
    except InvalidError as invalid:
        return str(invalid)
    except MissingElectionsError as missing:
        core.raft.waiting[sender] = message
        election_book.ask(core, sender, missing)
        return "elections-missing"
    return log_objection(core, shown)


def log_objection(core: Core, shown: Branch) -> str | None:
    """Why a candidate's log does not do (epochs.md, VOTE); None when it does."""
    tip, mine = shown.tip, core.log.tip
    if (tip.term, tip.index) < (mine.term, mine.index):
        return "log-behind"
    certified = highest_certified(core)
    if certified is None:
        return None
    if certified.term > tip.term:
        return "certificate-above"
    if certified.term == tip.term and not shown.contains(certified):
        return "certificate-missing"
    return None


def highest_certified(core: Core) -> Point | None:
    """The entry of my highest CC; a stable checkpoint counts as one of its entry."""
    found = core.stable_point
    if core.cc is not None:
        header = core.cc.header
        if found is None or (header.term, header.index) > (found.term, found.index):
            found = Point(header.index, header.hash(), header.term)
    return found


def shown_tip(core: Core, message: VoteRequest) -> Point:
    """The last place of a candidate's log."""
    top: Header | None = message.log[-1] if message.log else None
    if top is None and message.checkpoint is not None:
        top = message.checkpoint.header
    if top is None:
        return Point(core.record.start_index, core.record.start_hash, 0)
    return Point(top.index, top.hash(), top.term)


def has_leader(core: Core) -> bool:
    """True while the present term's leader does its work as far as I can see."""
    if role.leads(core):
        return leading.quorum_answers(core) and not leading.stalls(core)
    heard_ms = core.raft.heard_ms
    if heard_ms is None or core.now_ms - heard_ms >= role.election_ms(core):
        return False
    return not core.active or overdue.reason(core) is None


def transferred(core: Core, sender: int, transfer: Transfer | None) -> bool:
    """True when the leader of my present term wants `sender` to take over."""
    if transfer is None or (transfer.epoch, transfer.term) != (core.record.epoch, core.view):
        return False
    signed = transfer.signing_bytes(core.membership.scope)
    return transfer.to == sender and core.membership.signed(core.primary, signed, transfer.sig)


def give_vote(core: Core, term: int, last: Point) -> Vote:
    """Vote in a term above mine: once, durably, and for this log only."""
    role.step_into(core, term)
    bound = (last.term, last.index, last.hash)
    signed = elect_signing_bytes(core.membership.scope, core.record.epoch, term, bound)
    vote = Vote(core.record.epoch, term, *bound, core.me, core.sign(signed))
    core.raft.term_record = TermRecord(term, vote)
    core.persist(core.raft.term_record)
    return vote


def vote_again(core: Core, sender: int, message: VoteRequest) -> bool:
    """Repeat the vote that I gave in this term, if it is for this log: the same bytes."""
    record = core.raft.term_record
    if record is None or record.vote is None or record.term != message.term:
        return False
    if core.view != record.term or shown_tip(core, message).hash != record.vote.last_hash:
        return False
    core.send(sender, record.vote)
    return True


def on_transfer(core: Core, sender: int, message: Transfer) -> None:
    """Take over from the leader, which wants it: no pre-vote, no waiting."""
    if message.epoch != core.record.epoch or message.term != core.view or not core.active:
        return core.refuse(sender, message, "term")
    if not transferred(core, core.me, message):
        return core.refuse(sender, message, "signature")
    if core.primary == core.me:
        return core.refuse(sender, message, "from-myself")
    return stand(core, ViewChangeReason.HANDOVER, message)


def on_elections(core: Core, sender: int, message: Elections) -> None:
    """Take certificates that I asked for, and look again at who showed what needs them."""
    if not election_book.on_elections(core, sender, message):
        return
    waiting, core.raft.waiting = core.raft.waiting, {}
    for candidate in sorted(waiting):
        on_vote_request(core, candidate, waiting[candidate])
