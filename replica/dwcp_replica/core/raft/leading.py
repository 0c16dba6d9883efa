"""The leader: proposing, sending to each follower what it lacks, and counting its answers.

One message goes to a follower per event at most, with the entries and certificates that are new:
so a certificate rides with the next append when the leader is busy, and leaves at once when it is
not (epochs.md, Clients).
"""

from __future__ import annotations

from typing import Final

from dwcp.wire.peer import (
    AnyElection,
    Append,
    Appended,
    Certificate,
    Commit,
    Entry,
    Prepare,
    Transfer,
)
from dwcp_replica.core import proposals, tally
from dwcp_replica.core.effects import SteppedDown
from dwcp_replica.core.raft import reads, role
from dwcp_replica.core.raft.progress import Progress
from dwcp_replica.core.state import IN_FLIGHT_MAX, Core

ENTRIES_MAX: Final = 64
ENTRIES_BYTES_MAX: Final = 4 * 1024 * 1024
BEHIND_MAX: Final = 64
"""A follower that lacks more than this below final fetches it by itself (catch-up)."""
QUORUM_ELECTIONS: Final = 2
"""Election time-outs without a quorum's answers after which a leader steps down (check-quorum)."""
TRANSFER_ELECTIONS: Final = 2


def begin(core: Core) -> None:
    """Lead the present term: nothing is known of the followers yet."""
    raft = core.raft
    raft.leading = core.view
    raft.progress = {member: Progress(next=core.view_start) for member in followers(core)}
    raft.answered_ms = dict.fromkeys(range(core.n), core.now_ms)
    raft.beat_ms = core.now_ms
    settle(core)


def followers(core: Core) -> list[int]:
    """Who is sent entries: the other members, and learners, which are not counted."""
    return [m for m in (*range(core.n), *sorted(core.raft.learners)) if m != core.me]


def set_learners(core: Core, numbers: frozenset[int]) -> None:
    """Change who receives entries without being counted; numbers are above the members'."""
    assert all(number >= core.n for number in numbers), "members are no learners"
    core.raft.learners = numbers
    if role.leads(core):
        kept = core.raft.progress
        fresh = {m: Progress(next=core.log.last + 1) for m in followers(core)}
        core.raft.progress = {m: kept.get(m, fresh[m]) for m in fresh}


def propose(core: Core) -> None:
    """Extend the chain while requests or time ask for it and the window is open."""
    while (
        role.leads(core)
        and core.raft.transfer_to is None
        and not core.sealed
        and core.log.last - core.final < IN_FLIGHT_MAX
        and core.log.last < core.high
    ):
        batch = proposals.next_batch(core)
        if batch is None:
            return
        core.append(proposals.sign_entry(core, batch))
        settle(core)


# --- certificates ----------------------------------------------------------------------------


def settle(core: Core) -> None:
    """Turn quorums of acks and cert-acks into certificates, as far as they go."""
    first = tally.first_certificate(core)
    if first is not None:
        core.set_cc(first)
        core.prepared = first.header.index
        core.raft.news.append(first)
        if core.membership.decides("prepare"):
            core.set_final(first)
            core.prepares.forget_upto(first.header.index)
        else:
            core.vote_commit(first.header)
    second = tally.second_certificate(core)
    if second is not None:
        core.set_final(second)
        core.raft.news.append(second)
        core.prepares.forget_upto(second.header.index)
        core.commits.forget_upto(second.header.index)


def on_ack(core: Core, sender: int, message: Prepare) -> None:
    """Count an ack. The leader's signature on the header is its own; it sends none."""
    if message.header.term == core.view and message.member == core.primary:
        return core.refuse(sender, message, "primary-prepares")
    heard(core, sender, message)
    if is_mine(core, sender, message) and tally.count(core, sender, message, core.prepares):
        settle(core)
    return None


def on_cert_ack(core: Core, sender: int, message: Commit) -> None:
    """Count a cert-ack."""
    heard(core, sender, message)
    if is_mine(core, sender, message) and tally.count(core, sender, message, core.commits):
        settle(core)


def is_mine(core: Core, sender: int, message: Prepare | Commit) -> bool:
    """False, and counted, when I do not lead the term of a vote: it never counts then."""
    if message.header.epoch != core.record.epoch:
        core.refuse(sender, message, "epoch")
        return False
    if not role.leads(core) or message.header.term != core.view:
        core.refuse(sender, message, "term")
        return False
    return True


def heard(core: Core, sender: int, message: Prepare | Commit) -> None:
    """A vote of the present term for what I hold also says how far its sender is."""
    header = message.header
    progress = core.raft.progress.get(sender)
    if not role.leads(core) or progress is None or header.term != core.view:
        return
    if core.log.hash_at(header.index) == header.hash():
        core.raft.answered_ms[sender] = core.now_ms
        progress.accepted(header.index)


# --- sending ---------------------------------------------------------------------------------


def flush(core: Core) -> None:
    """Send every follower what is new for it."""
    if not role.leads(core):
        return
    raft = core.raft
    newest = {certificate.kind: certificate for certificate in raft.news}
    news = tuple(newest.values())
    raft.news.clear()
    shared: dict[int, Append] = {}
    for member, progress in raft.progress.items():
        message = append_for(core, progress, news, shared)
        if message is not None:
            core.send(member, message)


def append_for(
    core: Core, progress: Progress, news: tuple[Certificate, ...], shared: dict[int, Append]
) -> Append | None:
    """What a follower is to be sent now; the same message for all that stand alike."""
    keep_above_base(core, progress)
    entries = entries_for(core, progress)
    if not entries and not news:
        return None
    known = progress.match >= core.view_start and not progress.probing
    key = progress.next if known else -progress.next
    if key not in shared or len(shared[key].entries) != len(entries):
        shared[key] = append(core, progress, entries, news, beat=0)
    if entries:
        progress.sent(entries[-1].header.index)
    return shared[key]


def append(
    core: Core,
    progress: Progress,
    entries: list[Entry],
    shown: tuple[Certificate, ...],
    beat: int,
) -> Append:
    """The message with these entries, from where the follower is believed to be."""
    prev = core.log.point(progress.next - 1)
    return Append(
        epoch=core.record.epoch,
        term=core.view,
        prev_index=prev.index,
        prev_term=prev.term,
        prev_hash=prev.hash,
        entries=tuple(entries),
        certificates=shown,
        elections=elections_for(core, progress, entries),
        beat=beat,
    )


def keep_above_base(core: Core, progress: Progress) -> None:
    """A follower that lacks what is cut from the log fetches the state by itself."""
    lowest = core.log.base.index + 1
    if progress.next < lowest:
        progress.rejected(lowest, behind=True)


def entries_for(core: Core, progress: Progress) -> list[Entry]:
    """The entries from a follower's `next` on, as many as fit a message and its window."""
    found: list[Entry] = []
    size = 0
    upto = min(progress.upto, progress.next - 1 + ENTRIES_MAX, core.log.last)
    for slot in core.log.slots(progress.next - 1, upto):
        size += len(slot.entry.body)
        if found and size > ENTRIES_BYTES_MAX:
            break
        found.append(slot.entry)
    return found


def certificates(core: Core) -> tuple[Certificate, ...]:
    """My newest CC of this term, and my newest final certificate."""
    cc = core.cc if core.cc is not None and core.cc.header.term == core.view else None
    final = core.final_certificate
    if final is None or final is cc or final.kind != "commit":
        return () if cc is None else (cc,)
    return (final,) if cc is None or cc.header == final.header else (cc, final)


def elections_for(core: Core, progress: Progress, entries: list[Entry]) -> tuple[AnyElection, ...]:
    """Certificates of the terms that begin in these entries, and of mine until it is known."""
    terms = {core.view} if progress.probing or progress.match < core.view_start else set()
    below = core.log.point(progress.next - 1).term
    for entry in entries:
        if entry.header.term != below:
            terms.add(entry.header.term)
        below = entry.header.term
    found = [
        election
        for election, start in core.elections.values()
        if election.view in terms
        and (election == core.entered_election or core.log.hash_at(start.index) == start.hash)
    ]
    return tuple(sorted(found, key=lambda election: election.view))


def beat(core: Core) -> None:
    """A heartbeat to everyone, with certificates that a follower seems to lack.

    It carries no entries: the answer says what to send.
    """
    raft = core.raft
    raft.beat += 1
    raft.beat_ms = core.now_ms + role.beat_every_ms(core)
    raft.transfer_told = False
    every = certificates(core)
    for member, progress in raft.progress.items():
        keep_above_base(core, progress)
        shown = tuple(c for c in every if lacks(progress, c))
        core.send(member, append(core, progress, [], shown, raft.beat))


def lacks(progress: Progress, certificate: Certificate) -> bool:
    """True when a follower has not said that it has what this certificate says."""
    known = progress.prepared if certificate.kind == "prepare" else progress.final
    return certificate.header.index > known


def on_appended(core: Core, sender: int, message: Appended) -> None:
    """A follower says where it stands; believed for flow control alone."""
    if message.epoch != core.record.epoch:
        return core.refuse(sender, message, "epoch")
    if 0 <= sender < core.n:
        core.raft.terms[sender] = message.term
    progress = core.raft.progress.get(sender)
    if not role.leads(core) or progress is None or message.term != core.view:
        return None
    core.raft.answered_ms[sender] = core.now_ms
    progress.prepared, progress.final = message.prepared, message.final
    progress.beat = max(progress.beat, min(message.beat, core.raft.beat))
    if message.rejected:
        back_up(core, progress, message)
    elif message.index <= core.log.last:
        progress.accepted(message.index)
    if reads.check(core):
        beat(core)
    return None


def back_up(core: Core, progress: Progress, message: Appended) -> None:
    """Try from where the follower's log may still be mine; far below final it fetches itself."""
    near = core.log.nearest(message.index, message.hint_term)
    lowest = max(core.log.base.index, core.final - BEHIND_MAX)
    progress.rejected(max(lowest, near.index) + 1, behind=message.index < lowest)


# --- staying leader --------------------------------------------------------------------------


def quorum_answers(core: Core) -> bool:
    """True while a quorum, myself included, has lately answered me in this term."""
    oldest_ms = core.now_ms - QUORUM_ELECTIONS * role.election_ms(core) * 2 ** min(
        core.attempts, role.DOUBLINGS_MAX
    )
    answering = [
        m for m in range(core.n) if m == core.me or core.raft.answered_ms.get(m, 0) >= oldest_ms
    ]
    return len(answering) >= core.q


def stalls(core: Core) -> bool:
    """True when what I propose does not become final although it has had the time."""
    too_old_ms = core.now_ms - core.timeout_ms()
    return core.log.last > core.final and max(core.progress_ms, core.view_since_ms) < too_old_ms


def check_quorum(core: Core) -> None:
    """Step down when no quorum answers, or follows: others may have a leader, or want one."""
    if not quorum_answers(core) or stalls(core):
        role.stop_leading(core)
        core.active = False
        role.rearm(core)
        core.emit(SteppedDown(core.view))


def hand_over(core: Core, to: int | None = None) -> None:
    """Choose who shall lead next; entries wait meanwhile, for a while.

    `to` is taken only when it can lead at once, so that a wish costs no more than the hand-over.
    """
    if not role.leads(core):
        return
    raft = core.raft
    fit = [m for m in range(core.n) if m in raft.progress and not is_mute(core, m)]
    if not fit or (to is not None and not _can_take_over(core, to)):
        return
    if to is not None:
        fit = [to]
    raft.transfer_to = max(fit, key=lambda m: (raft.progress[m].match, raft.answered_ms[m], -m))
    raft.transfer_until_ms = core.now_ms + TRANSFER_ELECTIONS * role.election_ms(core)
    check_transfer(core)


def _can_take_over(core: Core, member: int) -> bool:
    """True for a follower that answers, signs, and holds nearly all that I do."""
    raft, behind = core.raft, core.window // 2
    fresh_ms = core.now_ms - role.election_ms(core)
    known = member in raft.progress and raft.progress[member].match >= core.log.last - behind
    barred = member in core.record.barred or is_mute(core, member)
    return known and not barred and raft.answered_ms.get(member, -1) >= fresh_ms


def is_mute(core: Core, member: int) -> bool:
    """True for a member that says that it signs nothing."""
    status = core.peers.get(member)
    return status is not None and status.mute


def check_transfer(core: Core) -> None:
    """Tell the chosen one to take over once it holds my whole log; give up after a while."""
    raft = core.raft
    target = raft.transfer_to
    if target is None or not role.leads(core):
        return
    if core.now_ms > raft.transfer_until_ms:
        raft.transfer_to = None
    elif raft.progress[target].match == core.log.last and not raft.transfer_told:
        core.send(target, signed_transfer(core, target))
        raft.transfer_told = True


def signed_transfer(core: Core, to: int) -> Transfer:
    """My word that `to` may take over."""
    unsigned = Transfer(core.record.epoch, core.view, to, bytes(64))
    sig = core.sign(unsigned.signing_bytes(core.membership.scope))
    return Transfer(core.record.epoch, core.view, to, sig)
