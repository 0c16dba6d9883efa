"""Raft messages of which a part still holds: an engine takes that part, and nothing besides.

What is not signed binds nobody, so that its sender may say what it likes: a changed message can
still carry genuine entries and certificates, and a request for a vote is its sender's own. What
such a message does is compared with what the genuine one does, to an engine in the same state.
"""

from __future__ import annotations

import copy
from itertools import product

import msgspec

from dwcp.wire.peer import Append, Certificate, PeerMessage, PreVote, VoteRequest
from dwcp_replica.core.effects import Ready, Received, TermRecord
from dwcp_replica.core.replica import Replica
from dwcp_replica.sim.fingerprint import Fingerprints


def says_a_part(changed: PeerMessage, message: PeerMessage) -> bool:
    """True when a part of the message holds in the changed one, or its sender may say it."""
    if isinstance(changed, Append) and isinstance(message, Append):
        certified = product(changed.certificates, message.certificates)
        elected = {election.digest() for election in changed.elections}
        return (
            bool(set(changed.entries) & set(message.entries))
            or any(is_part(one, genuine) for one, genuine in certified)
            or any(election.digest() in elected for election in message.elections)
        )
    if isinstance(changed, VoteRequest) and isinstance(message, VoteRequest):
        return set(changed.log) <= set(message.log)
    return isinstance(changed, PreVote) and changed.granted


def is_part(one: Certificate, genuine: Certificate) -> bool:
    """The same said by the same members, or some of them: each signs for itself."""
    votes = set(one.votes)
    return votes <= set(genuine.votes) and msgspec.structs.replace(one, votes=()) == (
        msgspec.structs.replace(genuine, votes=())
    )


def take_the_part(engine: Replica, sender: int, changed: PeerMessage, message: PeerMessage) -> None:
    """Assert that a changed message makes an engine do nothing that it must not."""
    part = copy.deepcopy(engine)
    before = part.standing()
    did = part.step(Received(sender, changed))
    assert part.standing().halted is None, changed
    if isinstance(changed, Append):
        whole = copy.deepcopy(engine)
        would = whole.step(Received(sender, message))
        assert done(did) <= done(would), changed
        assert part.standing().final <= whole.standing().final, changed
        assert part.standing().view in (before.view, whole.standing().view), changed
        return
    assert not did.apply, changed
    assert all(isinstance(record, TermRecord) for record in did.persist), changed
    assert (part.standing().last, part.standing().final) == (before.last, before.final), changed
    if isinstance(changed, VoteRequest):
        for record in did.persist:
            assert isinstance(record, TermRecord), "looked at above"
            binds_what_was_shown(engine, changed, record)
    else:
        assert isinstance(changed, PreVote), "nothing else is a part"
        assert not did.persist or changed.term == part.standing().view, changed


def binds_what_was_shown(engine: Replica, request: VoteRequest, record: TermRecord) -> None:
    """A vote that was given is for the term and the log that the candidate has shown."""
    assert not request.pre, "a question binds nobody"
    assert record.term == request.term, request
    vote = record.vote
    if vote is None:
        return
    assert vote.term == request.term, request
    if request.log:
        tip = request.log[-1]
        assert (vote.last_term, vote.last_index) == (tip.term, tip.index), request
        assert vote.last_hash == tip.hash(), request
    mine = engine._core.log.tip
    assert (vote.last_term, vote.last_index) >= (mine.term, mine.index), request


def done(ready: Ready) -> set[bytes]:
    """What is written down and executed, each as what it says."""
    prints = Fingerprints()
    return {prints.of(record) for record in ready.persist} | {
        prints.of(entry.header) for entry in ready.apply
    }
