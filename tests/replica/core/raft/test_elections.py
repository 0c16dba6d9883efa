"""Who is voted for, what a vote binds, and how a term passes on (epochs.md, VOTE)."""

from __future__ import annotations

import msgspec
import pytest

from dwcp.wire.peer import PreVote, Transfer, Vote, VoteRequest
from dwcp.wire.records import scope_of
from dwcp_replica.core.effects import (
    MessageRefused,
    Received,
    SteppedDown,
    TermRecord,
    Tick,
)
from dwcp_replica.core.raft import election, role
from dwcp_replica.core.replica import Replica
from replica.core.conversation import WALL_MS, Conversation


def lives(n: int = 4, trust: str = "Byzantine") -> Conversation:
    return Conversation(n=n, protocol="raft", trust=trust)  # type: ignore[arg-type]


def asked(talk: Conversation, candidate: int, term: int, *, pre: bool = False) -> VoteRequest:
    """What an honest candidate would show now."""
    core = talk.replicas[candidate]._core
    campaign = election.Campaign(term, core.log.tip, election.ViewChangeReason.SILENT, None, pre)
    return election.request(core, campaign)


def heard(talk: Conversation, member: int, sender: int, message: object) -> tuple[list, list]:  # type: ignore[type-arg]
    """What a member sends because of a message, and why it refused it."""
    ready = talk.replicas[member].step(Received(sender, message))  # type: ignore[arg-type]
    talk.records[member] += ready.persist
    reasons = [e.reason for e in ready.events if isinstance(e, MessageRefused)]
    return [out.message for out in ready.send], reasons


def silence(talk: Conversation) -> None:
    """Let the leader fall silent for longer than a vote waits for; nobody stands."""
    talk.now_ms += role.ELECTION_MS_MIN
    for member in range(1, talk.n):
        engine = talk.replicas[member]
        engine._core.raft.patience_ms = 10**9
        engine.step(Tick(talk.now_ms, WALL_MS + talk.now_ms))


def test_a_vote_is_durable_and_binds_the_candidates_log() -> None:
    talk = lives()
    talk.submit(0, "a", "1")
    talk.deliver()
    silence(talk)
    sent, _ = heard(talk, 1, 2, asked(talk, 2, 3))
    (vote,) = sent
    tip = talk.replicas[2]._core.log.tip
    assert (vote.term, vote.last_index, vote.last_hash) == (3, tip.index, tip.hash)
    assert TermRecord(3, vote) in talk.records[1]


def test_one_vote_in_a_term_and_the_same_bytes_again() -> None:
    talk = lives()
    talk.submit(0, "a", "1")
    talk.deliver()
    silence(talk)
    request = asked(talk, 2, 3)
    first, _ = heard(talk, 1, 2, request)
    again, _ = heard(talk, 1, 2, request)
    assert first == again
    shorter = msgspec.structs.replace(request, log=())
    assert heard(talk, 1, 2, shorter) == ([], ["term"])


def test_nobody_votes_while_the_leader_is_heard() -> None:
    talk = lives()
    talk.submit(0, "a", "1")
    talk.deliver()
    talk.wait(100)
    assert heard(talk, 1, 2, asked(talk, 2, 3)) == ([], ["leader-lives"])
    answers, reasons = heard(talk, 1, 2, asked(talk, 2, 3, pre=True))
    assert [answer.granted for answer in answers] == [False]
    assert reasons == ["leader-lives"]


def test_a_log_that_lacks_an_entry_gets_no_vote() -> None:
    talk = lives()
    talk.submit(0, "a", "1")
    talk.deliver()
    silence(talk)
    request = msgspec.structs.replace(asked(talk, 2, 3), log=())
    assert heard(talk, 1, 2, request) == ([], ["log-behind"])


def test_a_log_without_my_certificate_of_its_last_term_gets_no_vote() -> None:
    """A leader with two faces: the candidate holds the other entry, and as many."""
    talk = lives()
    talk.submit(0, "a", "1")
    talk.deliver()
    silence(talk)
    honest = asked(talk, 2, 3)
    (header,) = honest.log
    other = msgspec.structs.replace(header, batch=bytes(32))
    sig = talk.signers[0].sign(other.signing_bytes(scope_of(talk.genesis, talk.genesis)))
    forked = msgspec.structs.replace(honest, log=(msgspec.structs.replace(other, sig=sig),))
    assert heard(talk, 1, 2, forked) == ([], ["certificate-missing"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"term": 4}, "not-its-term"),
        ({"epoch": 2}, "epoch"),
        ({"term": 3 + 4 * 2**20}, "far-term"),
    ],
)
def test_a_candidate_stands_in_its_own_terms(change: dict[str, int], reason: str) -> None:
    talk = lives()
    silence(talk)
    request = msgspec.structs.replace(asked(talk, 2, 3), **change)
    assert heard(talk, 1, 2, request) == ([], [reason])


def test_headers_of_a_candidates_log_are_verified() -> None:
    talk = lives()
    talk.submit(0, "a", "1")
    talk.deliver()
    silence(talk)
    request = asked(talk, 2, 3)
    (header,) = request.log
    forged = msgspec.structs.replace(header, sig=bytes(64))
    lie = msgspec.structs.replace(request, log=(forged,))
    assert heard(talk, 1, 2, lie) == ([], ["header-signature"])


def test_a_term_that_nobody_was_elected_in_is_no_part_of_a_log() -> None:
    """Its leader signs an entry of a term without a certificate, and asks for votes on it."""
    talk = lives()
    silence(talk)
    scope = scope_of(talk.genesis, talk.genesis)
    donor = lives()
    donor.submit(0, "a", "1")
    donor.deliver()
    (header,) = asked(donor, 2, 3).log
    invented = msgspec.structs.replace(header, term=3)
    sig = talk.signers[2].sign(invented.signing_bytes(scope))
    log = (msgspec.structs.replace(invented, sig=sig),)
    request = msgspec.structs.replace(asked(talk, 2, 7), log=log)
    sent, reasons = heard(talk, 1, 2, request)
    assert reasons == ["elections-missing"]
    assert not any(isinstance(message, Vote) for message in sent)


def test_forged_votes_elect_nobody() -> None:
    talk = lives()
    talk.isolate(0)
    for member in (1, 3):
        talk.down.add(member)
    talk.wait(700)
    campaign = talk.replicas[2]._core.raft.campaign
    assert campaign is not None
    for member in (1, 3):
        talk.receive(2, member, PreVote(0, campaign.term, granted=True, view=1))
    assert not campaign.pre, "a pre-vote is a hint, and binds nobody"
    last = campaign.last
    bound = (last.term, last.index, last.hash)
    for member in (1, 3):
        sig = talk.signers[2].sign(b"another message")
        vote = Vote(0, campaign.term, *bound, member, sig)
        _, reasons = heard(talk, 2, member, vote)
        assert reasons == ["signature"]
    assert not talk.replicas[2].standing().active


def test_a_leader_without_a_quorum_steps_down() -> None:
    talk = lives()
    talk.submit(0, "a", "1")
    talk.deliver()
    talk.isolate(0)
    seen = []
    step = talk.replicas[0].step

    def noting(event: object) -> object:
        ready = step(event)  # type: ignore[arg-type]
        seen.extend(ready.events)
        return ready

    talk.replicas[0].step = noting  # type: ignore[assignment, method-assign]
    talk.wait(6000)
    assert SteppedDown(1) in seen
    assert not talk.replicas[0].standing().active


def test_a_leader_does_not_lead_its_term_on_after_a_restart() -> None:
    talk = lives()
    talk.submit(0, "a", "1")
    talk.deliver()
    talk.crash(0)
    talk.restart(0)
    standing = talk.replicas[0].standing()
    assert (standing.view, standing.active) == (1, False)
    talk.submit(0, "b", "2")
    talk.wait(1500)
    assert talk.values(0) == [b"1", b"2"]
    assert talk.replicas[0].standing().view > 1


def test_a_vote_survives_a_restart() -> None:
    talk = lives()
    talk.submit(0, "a", "1")
    talk.deliver()
    silence(talk)
    request = asked(talk, 2, 3)
    (vote,), _ = heard(talk, 1, 2, request)
    talk.restart(1)
    again, _ = heard(talk, 1, 2, request)
    assert again == [vote]
    other = msgspec.structs.replace(request, log=())
    assert heard(talk, 1, 2, other)[0] == []


def test_a_member_of_a_higher_term_is_let_in_again() -> None:
    """It had stood alone; the leader takes a higher term of its own, and none is lost."""
    talk = lives()
    talk.submit(0, "a", "1")
    talk.deliver()
    core = talk.replicas[3]._core
    election.give_vote(core, 4, core.log.tip)
    talk.records[3] += core.out.persist
    core.out.persist.clear()
    talk.crash(2)  # without member 3 there is no quorum now
    talk.submit(1, "b", "2")
    talk.wait(3000)
    assert talk.values(3) == [b"1", b"2"]
    assert talk.replicas[0].standing().view > 4


def test_a_stolen_transfer_moves_nobody() -> None:
    talk = lives()
    talk.submit(0, "a", "1")
    talk.deliver()
    talk.wait(100)
    scope = scope_of(talk.genesis, talk.genesis)
    forged = Transfer(0, 1, 2, bytes(64))
    sig = talk.signers[2].sign(forged.signing_bytes(scope))
    forged = msgspec.structs.replace(forged, sig=sig)
    request = msgspec.structs.replace(asked(talk, 2, 3), transfer=forged)
    assert heard(talk, 1, 2, request) == ([], ["leader-lives"])
    assert heard(talk, 2, 1, forged) == ([], ["signature"])


def test_a_leader_hands_over_to_the_one_that_is_named_only_if_that_one_can() -> None:
    talk = Conversation(protocol="raft")
    talk.submit(0, "a", "1")
    talk.wait(500)
    talk.isolate(2)
    talk.wait(500)
    talk.hand_over(0, to=2)
    talk.submit(0, "b", "2")
    talk.wait(20)
    assert talk.values(1) == [b"1", b"2"], "it is not there: nobody waits for it"
    talk.hand_over(0, to=3)
    talk.wait(300)
    assert {talk.replicas[m].standing().primary for m in (0, 1, 3)} == {3}


def test_a_hand_over_is_quick_and_loses_nothing() -> None:
    talk = lives()
    talk.submit(0, "a", "1")
    talk.deliver()
    talk.wait(100)
    talk.hand_over(0)
    talk.submit(0, "b", "2")
    talk.deliver()
    assert [replica.standing().view for replica in talk.replicas] == [2, 2, 2, 2]
    assert talk.values(3) == [b"1", b"2"]


def test_a_leader_that_passes_a_client_over_is_replaced() -> None:
    talk = lives()
    talk.submit(0, "a", "1")
    talk.deliver()
    talk.replicas[0]._core.pool.add = lambda _envelope, _now_ms: False  # type: ignore[method-assign]
    for member in (1, 2, 3):
        talk.submit(member, "b", "2")
    talk.wait(3000)
    assert b"2" in talk.values(1)
    assert [replica.standing().epoch for replica in talk.replicas] == [0] * 4, "Raft does it"


@pytest.mark.parametrize("n", [1, 3, 5])
def test_members_that_trust_each_other_need_a_majority(n: int) -> None:
    talk = lives(n, "Crash")
    talk.submit(n - 1, "a", "1")
    talk.deliver()
    for member in range(n // 2):
        talk.crash(member)
    talk.submit(n - 1, "b", "2")
    talk.wait(2000)
    assert talk.values(n - 1) == [b"1", b"2"]
    talk.crash(n // 2)
    if n > 1:
        talk.submit(n - 1, "c", "3")
        talk.wait(2000)
        assert talk.values(n - 1) == [b"1", b"2"], "no minority goes on"


def test_random_draws_come_from_the_shell() -> None:
    talk = lives()
    with pytest.raises(AssertionError, match="source of random numbers"):
        Replica(genesis=talk.genesis, me=0, signer=talk.signers[0], verifier=talk.verifier).step(
            Tick(1000, WALL_MS)
        )
