"""Votes for frontiers of documents in the log: a quorum of members agrees, nobody else."""

from __future__ import annotations

import msgspec
import pytest

from dwcp.wire.frontiers import Frontier, FrontierGetRequest, FrontierVote, FrontierVoted
from dwcp.wire.operations import Access, AccessSetRequest, EnvelopeFailure, Failure, Grant, Result
from dwcp_replica.core.quorum import quorum
from dwcp_replica.store.frontiers import VOTES_MAX
from replica.store.driver import ALICE, BOB
from replica.store.test_modes import Log, envelope

HERE = Frontier((bytes([1]) * 32, bytes([2]) * 32), bytes([9]) * 32)
ELSEWHERE = Frontier((bytes([3]) * 32,), bytes([9]) * 32)
OTHER_IMAGE = Frontier(HERE.heads, bytes([8]) * 32)


class Voting(Log):
    """Members that vote; their clocks go on by themselves."""

    stamp_ms = 0

    def vote(self, member: int, frontier: Frontier = HERE, document: str = "notes") -> Result:
        self.stamp_ms += 1
        vote = FrontierVote(self.stamp_ms, document, frontier)
        ((result,),) = self.entry(envelope(self.genesis.members[member].identity, vote))
        return result

    def agreed(self, document: str = "notes") -> Frontier | None:
        return self.store.key_store.frontiers.agreed(document)


@pytest.mark.parametrize("n", [4, 7, 10, 13])
def test_a_quorum_of_equal_votes_agrees(n: int) -> None:
    log = Voting(n)
    for liar, frontier in enumerate((ELSEWHERE, OTHER_IMAGE)):
        assert log.vote(liar, frontier) == FrontierVoted()
    for member in range(quorum(n) - 1):
        log.vote(n - 1 - member)
        assert log.agreed() is None
    log.vote(n - 1 - member)
    assert log.agreed() is None, "one member votes once, however often"
    log.vote(n - quorum(n))
    assert log.agreed() == HERE
    assert log.client(FrontierGetRequest("notes")).frontier == HERE  # type: ignore[union-attr]
    assert log.agreed("other") is None


def test_a_member_changes_its_mind_and_old_votes_do_not_come_back() -> None:
    log = Voting()
    for member in (0, 1):
        log.vote(member, ELSEWHERE)
    late = envelope(log.genesis.members[0].identity, FrontierVote(1, "notes", ELSEWHERE))
    log.vote(0)
    log.vote(2)
    ((again,),) = log.entry(late)
    assert isinstance(again, Failure | EnvelopeFailure)
    log.vote(1)
    assert log.agreed() == HERE


def test_who_is_no_member_any_more_does_not_count() -> None:
    log = Voting()
    for member in (0, 1):
        log.vote(member)
    fresh = msgspec.structs.replace(log.genesis.members[0], name="m-9", identity=bytes([99]) * 32)
    members = (fresh, *log.genesis.members[1:])
    record = msgspec.structs.replace(log.genesis, epoch=1, members=members)
    log.store.enter(record)
    log.vote(2)
    assert log.agreed() is None
    log.genesis = record
    log.vote(0)
    assert log.agreed() == HERE


def test_what_one_member_may_put_here_is_bounded_and_costs_others_nothing() -> None:
    log = Voting()
    for member in (1, 2):
        log.vote(member)
    for number in range(2 * VOTES_MAX):
        log.vote(0, document=f"made-up-{number}")
    votes = log.store.key_store.frontiers.votes()
    assert len(votes[log.genesis.members[0].identity].votes) == VOTES_MAX
    log.vote(3)
    assert log.agreed() == HERE


def test_clients_do_not_vote_and_read_only_what_they_may() -> None:
    log = Voting()
    vote = FrontierVote(1, "notes", HERE)
    assert isinstance(log.client(vote), EnvelopeFailure | Failure)
    log.client(
        AccessSetRequest(BOB.public_key, Access(grants=(Grant(b"documents/notes", read=True),)))
    )
    allowed = log.client(FrontierGetRequest("notes"), BOB.public_key)
    denied = log.client(FrontierGetRequest("other"), BOB.public_key)
    assert not isinstance(allowed, Failure)
    assert isinstance(denied, Failure)
    assert log.client(FrontierGetRequest("notes"), ALICE.public_key) == allowed


def test_heads_that_do_not_ascend_are_refused() -> None:
    log = Voting()
    twisted = Frontier(tuple(reversed(HERE.heads)), HERE.image)
    assert isinstance(log.vote(0, twisted), Failure)
    assert log.store.key_store.frontiers.votes() == {}
