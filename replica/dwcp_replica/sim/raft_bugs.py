"""Bugs in the Raft driver: the rows of epochs.md's last table that concern elections, acks and CC.

Each function plants one bug, whose docstring says what is wrong then.
"""

from __future__ import annotations

from typing import Any

from dwcp.wire.peer import (
    Append,
    Certificate,
    Commit,
    Entry,
    Header,
    Prepare,
    Vote,
    VoteRequest,
    vote_signing_bytes,
)
from dwcp_replica.core import elections, evidence, tally
from dwcp_replica.core.certificates import Membership
from dwcp_replica.core.chain import Branch, Point, Slot
from dwcp_replica.core.effects import TermRecord, ViewChangeReason
from dwcp_replica.core.raft import driver, election, following, leading, role, timers
from dwcp_replica.core.raft.progress import Progress
from dwcp_replica.core.state import Core
from dwcp_replica.sim.planting import Patches

# --- certificates --------------------------------------------------------------------------------


def final_after_one_round(patches: Patches) -> None:
    """A leader takes its CC for final."""
    proper = leading.settle

    def settle(core: Core) -> None:
        proper(core)
        cc = core.cc
        if cc is not None and cc.header.term == core.view and cc.header.index > core.final:
            core.set_final(Certificate("commit", cc.header, b"", cc.votes))

    patches.set(leading, "settle", settle)


def cert_ack_quorum_2f(patches: Patches) -> None:
    """One cert-ack less is enough."""
    proper = tally.second_certificate

    def second_certificate(core: Core) -> Certificate | None:
        core.q -= 1
        try:
            return proper(core)
        finally:
            core.q += 1

    patches.set(tally, "second_certificate", second_certificate)


def old_term_acks_count(patches: Patches) -> None:
    """A new leader counts who holds what it inherited, and calls it final (Raft's figure 8)."""
    proper = leading.on_appended

    def on_appended(core: Core, sender: int, message: Any) -> None:
        proper(core, sender, message)
        held = sorted((p.match for p in core.raft.progress.values()), reverse=True)
        inherited = core.view_start - 1
        if not role.leads(core) or len(held) < core.q - 1 or held[core.q - 2] < inherited:
            return
        slot = core.log.slot(inherited)
        if slot is not None and inherited > core.final:
            core.set_final(Certificate("commit", slot.header, b"", ()))

    patches.set(leading, "on_appended", on_appended)


def cert_ack_without_acked_log(patches: Patches) -> None:
    """A replica cert-acks a CC of entries that it does not hold."""
    proper = following.take_certificates

    def take_certificates(core: Core, sender: int, shown: tuple[Certificate, ...]) -> None:
        for certificate in shown:
            header = certificate.header
            if certificate.kind == "prepare" and core.log.last < header.index and core.active:
                signed = vote_signing_bytes(core.membership.scope, "commit", header)
                core.send(sender, Commit(header, core.me, core.signer.sign(signed)))
        proper(core, sender, shown)

    patches.set(following, "take_certificates", take_certificates)


def _also_when_older(patches: Patches, then: Any) -> None:
    """Let a follower do something with what the leader of an older term sends."""
    proper = following.on_append

    def on_append(core: Core, sender: int, message: Append) -> None:
        if message.term < core.view and core.mute is None and core.record.primary(message.term):
            then(core, sender, message)
        proper(core, sender, message)

    patches.set(following, "on_append", on_append)


def cert_ack_in_an_older_term(patches: Patches) -> None:
    """A replica cert-acks in a term although it has voted in a later one."""

    def then(core: Core, sender: int, message: Append) -> None:
        for certificate in message.certificates:
            header = certificate.header
            if certificate.kind == "prepare" and core.log.hash_at(header.index) == header.hash():
                signed = vote_signing_bytes(core.membership.scope, "commit", header)
                core.send(sender, Commit(header, core.me, core.signer.sign(signed)))

    _also_when_older(patches, then)


def ack_in_an_older_term(patches: Patches) -> None:
    """A replica acks in a term although it has voted in a later one."""

    def then(core: Core, sender: int, message: Append) -> None:
        for entry in message.entries:
            if entry.header.prev == core.log.tip.hash and core.log.tip.term <= entry.header.term:
                core.append(entry)
                signed = vote_signing_bytes(core.membership.scope, "prepare", entry.header)
                core.send(sender, Prepare(entry.header, core.me, core.signer.sign(signed)))

    _also_when_older(patches, then)


def same_term_overwrite(patches: Patches) -> None:
    """A second entry of the leader for one place replaces the first."""
    proper = following.extend

    def extend(core: Core, entry: Entry) -> str | None:
        index = entry.header.index
        if core.final < index <= core.log.last and entry.header.term == core.view:
            core.truncate(index - 1)
            core.cc, core.prepared = None, core.final
            core.prepares.clear()
        return proper(core, entry)

    patches.set(evidence, "check_header", lambda _core, _header: False)
    patches.set(following, "extend", extend)


# --- elections -----------------------------------------------------------------------------------


def vote_without_log_check(patches: Patches) -> None:
    """A replica votes for whoever asks, whatever its log."""
    patches.set(election, "log_objection", lambda _core, _shown: None)


def length_before_term(patches: Patches) -> None:
    """A longer log is better, of whatever term."""

    def log_objection(core: Core, shown: Branch) -> str | None:
        tip, mine = shown.tip, core.log.tip
        return "log-behind" if (tip.index, tip.term) < (mine.index, mine.term) else None

    patches.set(election, "log_objection", log_objection)


def vote_without_certificate_check(patches: Patches) -> None:
    """A candidate whose log lacks my CC of its own last term gets my vote."""

    def log_objection(core: Core, shown: Branch) -> str | None:
        tip, mine = shown.tip, core.log.tip
        return "log-behind" if (tip.term, tip.index) < (mine.term, mine.index) else None

    patches.set(election, "log_objection", log_objection)


def log_unverified(patches: Patches) -> None:
    """A candidate's log is believed, at the vote and when it is taken over."""
    proper = elections.candidate_log

    class Credulous(Membership):
        def header_holds(self, header: Header) -> bool:
            return header.epoch == self.record.epoch

    def candidate_log(membership: Membership, request: VoteRequest, starts: Any) -> Branch:
        credulous = Credulous(membership.record, membership.scope, membership.verifier)
        return proper(credulous, request, starts)

    take_one = following.take_one

    def taken(core: Core, sender: int, term: int, entry: Entry) -> str | None:
        reason = take_one(core, sender, term, entry)
        if reason == "signature" and not core.active:
            return following.stage(core, sender, term, entry)
        return reason

    patches.set(elections._Known, "check", lambda _self, _term, _at: None)
    patches.set(following, "take_one", taken)
    patches.set(election, "candidate_log", candidate_log)
    patches.set(following, "starts_at", lambda *_given: True)


def votes_do_not_bind_the_log(patches: Patches) -> None:
    """A leader may begin its term wherever it likes."""

    def install(core: Core, term: int, below: Point, first: Slot) -> str | None:
        found, _ = role.start_of_term(core, term) or (None, None)
        kept = following.staged(core)
        if found is None:
            return "start"
        keep, slots = (below.index, []) if kept is None else (kept.above, list(kept.slots))
        if keep < core.final:
            core.halt(f"term {term} does not extend what is final here at {core.final}")
            return "halted"
        core.replace_above(keep, slots)
        role.enter(core, found, below, first)
        return None

    def starts_at(_core: Core, _sender: int, _header: Header, _below: Point) -> bool:
        return True

    patches.set(following, "install", install)
    patches.set(following, "starts_at", starts_at)


def leader_without_election(patches: Patches) -> None:
    """A term's certificate counts without its votes."""

    def voted_start(membership: Membership, shown: Any) -> Point:
        if shown.last_term >= shown.view or shown.epoch != membership.record.epoch:
            raise elections.InvalidError("start")
        return Point(shown.last_index, shown.last_hash, shown.last_term)

    patches.set(elections, "_voted_start", voted_start)


def vote_quorum_2f(patches: Patches) -> None:
    """One vote less makes a leader."""
    proper = elections._voted_start
    check_votes = election.check_votes

    class Fewer(Membership):
        @property
        def quorum(self) -> int:
            return 2 * ((self.n - 1) // 3)

    def voted_start(membership: Membership, shown: Any) -> Point:
        fewer = Fewer(membership.record, membership.scope, membership.verifier)
        return proper(fewer, shown)

    def lowered(core: Core) -> None:
        core.q -= 1
        check_votes(core)
        core.q += 1

    patches.set(elections, "_voted_start", voted_start)
    patches.set(election, "check_votes", lowered)


def two_votes_in_a_term(patches: Patches) -> None:
    """A replica votes twice in one term, for different logs."""
    proper = election.objection

    def objection(core: Core, sender: int, message: VoteRequest) -> str | None:
        record = core.raft.term_record
        again = record is not None and record.vote is not None and record.term == message.term
        if again and core.view == message.term and not message.pre and not core.active:
            core.view -= 1
        return proper(core, sender, message)

    patches.set(election, "objection", objection)


def vote_not_durable(patches: Patches) -> None:
    """A replica forgets for whom it has voted."""
    proper = election.give_vote

    def give_vote(core: Core, term: int, last: Point) -> Vote:
        vote = proper(core, term, last)
        core.out.persist[:] = [r for r in core.out.persist if not isinstance(r, TermRecord)]
        return vote

    patches.set(election, "give_vote", give_vote)


def leader_resumes_its_term(patches: Patches) -> None:
    """A leader leads on after a crash as if nothing had happened."""
    proper_resume, proper_begin = driver.resume, driver.begin

    def resume(core: Core, entered: int) -> None:
        proper_resume(core, entered)
        core.active = core.active or (core.primary == core.me and core.log.tip.term == core.view)

    def begin(core: Core) -> None:
        proper_begin(core)
        if core.active and core.primary == core.me and core.mute is None:
            leading.begin(core)

    patches.set(driver, "resume", resume)
    patches.set(driver, "begin", begin)


# --- liveness ------------------------------------------------------------------------------------


def leader_never_missed(patches: Patches) -> None:
    """Nobody stands for election."""

    def why_stand(_core: Core) -> ViewChangeReason | None:
        return None

    patches.set(timers, "why_stand", why_stand)


def appends_never_repeated(patches: Patches) -> None:
    """A follower that says what it lacks is not heard."""
    patches.set(leading, "back_up", lambda _core, _progress, _message: None)
    patches.set(Progress, "accepted", lambda _self, _index: None)
